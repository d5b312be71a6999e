/* SPDX-License-Identifier: MIT */
/* From libcurl's codes to a kind of error, the phase and a cause that reads well. */
#include "curl_wire.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/** "connection refused", as errno says it but for the capital. */
static void curl_system_text(char *out, size_t size, long error, const char *otherwise)
{
    char buffer[128];
    const char *text = error ? strerror_r((int)error, buffer, sizeof buffer) : otherwise;
    snprintf(out, size, "%s", text);
    if (isupper((unsigned char)out[0]) && islower((unsigned char)out[1]))
        out[0] = (char)tolower((unsigned char)out[0]);
}

/** libcurl's own words, without a line end and with a small letter in front. */
static void curl_detail_text(char *out, size_t size, CURLcode code, const char *detail)
{
    curl_system_text(out, size, 0, detail[0] ? detail : curl_easy_strerror(code));
    out[strcspn(out, "\r\n")] = '\0';
}

static void curl_report_connect(sl_http_transfer *transfer, CURLcode code, long system_error)
{
    char cause[128];
    curl_system_text(cause, sizeof cause, system_error, curl_easy_strerror(code));
    sl_http_on_failure(transfer, "ConnectError", "connect", cause);
}

/** The connection ended: where, decides what that means. */
static void curl_report_cut(sl_http_transfer *transfer, CURLcode code, long system_error)
{
    char cause[128], text[192];
    curl_system_text(cause, sizeof cause, system_error, "connection closed");
    bool by_the_end = code != CURLE_SEND_ERROR && code != CURLE_RECV_ERROR;
    if (by_the_end)
        snprintf(cause, sizeof cause, "connection closed");
    switch (transfer->state) {
    case SL_HTTP_CONNECTING:
        sl_http_on_failure(transfer, "ConnectError", "connect", cause);
        return;
    case SL_HTTP_WAITING:
        snprintf(text, sizeof text, "%s before an answer", cause);
        sl_http_on_failure(transfer, "ConnectError",
                           code == CURLE_SEND_ERROR ? "send" : "first_byte", text);
        return;
    case SL_HTTP_HEAD:
        snprintf(text, sizeof text, "%s in the middle of the head", cause);
        sl_http_on_failure(transfer, "TruncatedStream", "head", text);
        return;
    default:
        snprintf(text, sizeof text, "%s in the middle of the body, after %" PRIu64 " bytes", cause,
                 transfer->received);
        sl_http_on_failure(transfer, "TruncatedStream", "body", text);
    }
}

static bool curl_is_tls(CURLcode code)
{
    switch (code) {
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_ENGINE_NOTFOUND:
    case CURLE_SSL_ENGINE_SETFAILED:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ENGINE_INITFAILED:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_SHUTDOWN_FAILED:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_CLIENTCERT:
        return true;
    default:
        return false;
    }
}

static void curl_report_detail(sl_http_transfer *transfer, const char *kind, const char *phase,
                               CURLcode code, const char *detail)
{
    char text[192];
    curl_detail_text(text, sizeof text, code, detail);
    sl_http_on_failure(transfer, kind, phase, text);
}

static void curl_report_timeout(sl_http_transfer *transfer)
{
    /* libcurl's share of the connect limit for the last address ran out a moment before ours */
    sl_http_failure_set(transfer, "TimeoutError", "connect", "not connected within %g s",
                        (double)transfer->limits[SL_HTTP_CONNECT] / 1e6);
    transfer->failure.limit = "connect";
    sl_http_on_failure(transfer, "TimeoutError", "connect", "");
}

/** What libcurl calls success may still lack the end of its head. */
static void curl_report_success(sl_http_transfer *transfer)
{
    if (!transfer->head_complete)
        curl_report_cut(transfer, CURLE_OK, 0);
    else if (transfer->status < 100)
        sl_http_on_failure(transfer, "ProtocolError", "head", "status line cannot be read");
    else
        sl_http_on_end(transfer);
}

static const char *curl_phase(const sl_http_transfer *transfer)
{
    if (transfer->state == SL_HTTP_BODY)
        return "body";
    return transfer->state >= SL_HTTP_WAITING ? "head" : "connect";
}

/** libcurl 7.88 says the same of a header line that is longer than it allows. */
static void curl_report_no_memory(sl_http_transfer *transfer)
{
    if (transfer->state != SL_HTTP_WAITING && transfer->state != SL_HTTP_HEAD) {
        sl_http_on_failure(transfer, NULL, curl_phase(transfer), "not enough memory");
        return;
    }
    sl_http_failure_set(transfer, "ProtocolError", "head",
                        "a header line of more than 102400 bytes");
    transfer->failure.code = "HEAD_TOO_LARGE";
    sl_http_on_failure(transfer, "ProtocolError", "head", "");
}

void sl_curl_report(sl_http_transfer *transfer, CURLcode code, long system_error,
                    const char *detail)
{
    if (curl_is_tls(code)) {
        curl_report_detail(transfer, "TLSError", "tls", code, detail);
        return;
    }
    switch (code) {
    case CURLE_OK:
        curl_report_success(transfer);
        break;
    case CURLE_COULDNT_CONNECT:
        curl_report_connect(transfer, code, system_error);
        break;
    case CURLE_OPERATION_TIMEDOUT:
        curl_report_timeout(transfer);
        break;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
        if (strstr(detail, "CONNECT") && transfer->state == SL_HTTP_CONNECTING) {
            curl_report_detail(transfer, "ConnectError", "connect", code, detail);
            break;
        }
        /* fall through */
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_SEND_FAIL_REWIND:
        if (strstr(detail, "chunked-encoding"))
            curl_report_detail(transfer, "ProtocolError", "body", code, detail);
        else
            curl_report_cut(transfer, code, system_error);
        break;
    case CURLE_OUT_OF_MEMORY:
        curl_report_no_memory(transfer);
        break;
    case CURLE_PROXY:
        curl_report_detail(transfer, "ConnectError", "connect", code, detail);
        break;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        curl_report_detail(transfer, "ConnectError", "resolve", code, detail);
        break;
    default:
        /* with the abort of a callback a failure is there already, and stays */
        curl_report_detail(transfer, "ProtocolError", curl_phase(transfer), code, detail);
    }
}
