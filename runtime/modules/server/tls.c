/* SPDX-License-Identifier: MIT */
/* TLS under the connections of a server, by OpenSSL. */
#include "tls.h"
#include "connection.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

struct sl_tls {
    sl_core *core;
    SSL_CTX *context;
    /** Reads and writes the socket without a SIGPIPE, which OpenSSL's own does not. */
    BIO_METHOD *method;
};

/* ---- the socket, as OpenSSL sees it ---- */

static int tls_bio_result(BIO *bio, ssize_t result, int retry)
{
    BIO_clear_retry_flags(bio);
    if (result < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_flags(bio, retry | BIO_FLAGS_SHOULD_RETRY);
    return (int)result;
}

static int tls_bio_write(BIO *bio, const char *bytes, int length)
{
    const sl_connection *c = BIO_get_data(bio);
    ssize_t sent = send(c->io.fd, bytes, (size_t)length, MSG_NOSIGNAL);
    return tls_bio_result(bio, sent, BIO_FLAGS_WRITE);
}

static int tls_bio_read(BIO *bio, char *bytes, int size)
{
    const sl_connection *c = BIO_get_data(bio);
    return tls_bio_result(bio, recv(c->io.fd, bytes, (size_t)size, 0), BIO_FLAGS_READ);
}

static long tls_bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *tls_bio_method(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "sluice connection");
    if (!method)
        return NULL;
    BIO_meth_set_write(method, tls_bio_write);
    BIO_meth_set_read(method, tls_bio_read);
    BIO_meth_set_ctrl(method, tls_bio_control);
    return method;
}

/* ---- the transport ---- */

static bool tls_open(sl_connection *c)
{
    sl_tls *tls = c->server->transport_data;
    ERR_clear_error();
    SSL *ssl = SSL_new(tls->context);
    BIO *bio = ssl ? BIO_new(tls->method) : NULL;
    if (!bio) {
        SSL_free(ssl);
        return false;
    }
    BIO_set_data(bio, c);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_accept_state(ssl);
    c->transport_data = ssl;
    return true;
}

/** -1 and errno for what OpenSSL could not do; 0 where the other side has ended. */
static int tls_failure(sl_connection *c, int result, bool reading)
{
    int error = SSL_get_error(c->transport_data, result);
    unsigned long first = ERR_peek_error();
    int reason = ERR_GET_LIB(first) == ERR_LIB_SSL ? ERR_GET_REASON(first) : 0;
    ERR_clear_error();
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        c->crossed = c->crossed || reading != (error == SSL_ERROR_WANT_READ);
        errno = EAGAIN;
        return -1;
    }
    /* An end without close_notify cuts nothing off: what is read here has lengths. */
    if (error == SSL_ERROR_ZERO_RETURN || reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        return 0;
    errno = ECONNRESET;
    if (reason == SSL_R_HTTP_REQUEST || reason == SSL_R_HTTPS_PROXY_REQUEST) {
        sl_connection_not_tls(c);
        errno = EAGAIN;
    }
    return -1;
}

/* A record is 16 KB at most, so that with room for one nothing stays behind inside of OpenSSL,
 * where the loop would not see it. */
static ssize_t tls_receive(sl_connection *c, char *bytes, size_t size)
{
    size_t got;
    ERR_clear_error();
    int result = SSL_read_ex(c->transport_data, bytes, size, &got);
    if (result > 0)
        return (ssize_t)got;
    return tls_failure(c, result, true);
}

static ssize_t tls_send(sl_connection *c, const char *bytes, size_t length)
{
    size_t sent;
    ERR_clear_error();
    int result = SSL_write_ex(c->transport_data, bytes, length, &sent);
    if (result > 0)
        return (ssize_t)sent;
    if (tls_failure(c, result, false) == 0)
        errno = EPIPE;
    return -1;
}

static int tls_end(sl_connection *c)
{
    ERR_clear_error();
    int result = SSL_shutdown(c->transport_data);
    if (result >= 0)
        return shutdown(c->io.fd, SHUT_WR);
    if (tls_failure(c, result, true) == 0)
        errno = EPIPE;
    return -1;
}

/** A connection that is cut is not told so: the client must not take a part for the whole. */
static void tls_close(sl_connection *c, bool in_order)
{
    SSL *ssl = c->transport_data;
    c->transport_data = NULL;
    ERR_clear_error();
    if (in_order && SSL_is_init_finished(ssl) && !(SSL_get_shutdown(ssl) & SSL_SENT_SHUTDOWN))
        (void)SSL_shutdown(ssl);
    SSL_free(ssl);
    ERR_clear_error();
}

static const sl_transport tls_transport = {
    .open = tls_open,
    .receive = tls_receive,
    .send = tls_send,
    .end = tls_end,
    .close = tls_close,
};

/* ---- the context ---- */

/** HTTP/1.1, or nothing: a client that only speaks something else is told so by an alert. */
static int on_tls_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_length,
                       const unsigned char *offered, unsigned offered_length, void *user)
{
    static const unsigned char ours[] = "\x08http/1.1";
    unsigned char *chosen;
    (void)ssl, (void)user;
    int result =
        SSL_select_next_proto(&chosen, out_length, ours, sizeof ours - 1, offered, offered_length);
    *out = chosen;
    return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/** Nobody is asked for a pass phrase: OpenSSL's own way would be the terminal. */
static int on_tls_pass_phrase(char *text, int size, int writing, void *user)
{
    (void)text, (void)size, (void)writing, (void)user;
    return -1;
}

static void tls_context_set(SSL_CTX *context)
{
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    /* Tickets let clients resume; sessions kept here would only grow. */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_alpn_select_cb(context, on_tls_alpn, NULL);
    SSL_CTX_set_default_passwd_cb(context, on_tls_pass_phrase);
}

/** The innermost cause, which is the first one of OpenSSL's list. */
static void tls_explain(const char *what, const char *path, char *error, size_t size)
{
    unsigned long code = ERR_peek_error();
    const char *cause = ERR_GET_LIB(code) == ERR_LIB_SYS ? strerror(ERR_GET_REASON(code))
                                                         : ERR_reason_error_string(code);
    snprintf(error, size, "the %s %s: %s", what, path, cause ? cause : "OpenSSL does not say why");
    ERR_clear_error();
}

/** What is wrong with the files: NULL, or which of them. */
static const char *tls_context_load(SSL_CTX *context, const char *certificate, const char *key)
{
    if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1)
        return "certificate";
    if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(context) != 1)
        return "key";
    return NULL;
}

sl_tls *sl_tls_new(sl_core *core, const char *certificate, const char *key, char *error,
                   size_t size)
{
    ERR_clear_error();
    sl_tls *tls = sl_alloc(core, sizeof *tls);
    if (tls) {
        tls->core = core;
        tls->context = SSL_CTX_new(TLS_server_method());
        tls->method = tls_bio_method();
    }
    if (!tls || !tls->context || !tls->method) {
        snprintf(error, size, "TLS: not enough memory");
        sl_tls_delete(tls);
        return NULL;
    }
    tls_context_set(tls->context);
    const char *wrong = tls_context_load(tls->context, certificate, key);
    if (wrong) {
        tls_explain(wrong, *wrong == 'k' ? key : certificate, error, size);
        sl_tls_delete(tls);
        return NULL;
    }
    return tls;
}

void sl_tls_delete(sl_tls *tls)
{
    if (!tls)
        return;
    SSL_CTX_free(tls->context);
    BIO_meth_free(tls->method);
    sl_free(tls->core, tls);
    ERR_clear_error();
}

void sl_tls_use(sl_server *server, sl_tls *tls)
{
    server->transport = &tls_transport;
    server->transport_data = tls;
}
