/* SPDX-License-Identifier: MIT */
/* TLS under a connection to Redis, by OpenSSL; its memory is OpenSSL's own. */
#include "private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* Debian's bundle; OpenSSL's own default would look through a directory. */
static const char default_authorities[] = "/etc/ssl/certs/ca-certificates.crt";

struct sl_redis_tls {
    sl_core *core;
    SSL_CTX *context;
    /** Reads and writes the socket without a SIGPIPE, which OpenSSL's own does not. */
    BIO_METHOD *method;
    bool verify;
};

/* ---- the socket, as OpenSSL sees it ---- */

static int redis_bio_result(BIO *bio, ssize_t result, int retry)
{
    BIO_clear_retry_flags(bio);
    if (result < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_flags(bio, retry | BIO_FLAGS_SHOULD_RETRY);
    return (int)result;
}

static int redis_bio_write(BIO *bio, const char *bytes, int length)
{
    const sl_redis *c = BIO_get_data(bio);
    ssize_t sent = send(c->io.fd, bytes, (size_t)length, MSG_NOSIGNAL);
    return redis_bio_result(bio, sent, BIO_FLAGS_WRITE);
}

static int redis_bio_read(BIO *bio, char *bytes, int size)
{
    const sl_redis *c = BIO_get_data(bio);
    return redis_bio_result(bio, recv(c->io.fd, bytes, (size_t)size, 0), BIO_FLAGS_READ);
}

static long redis_bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *redis_bio_method(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "sluice redis");
    if (!method)
        return NULL;
    BIO_meth_set_write(method, redis_bio_write);
    BIO_meth_set_read(method, redis_bio_read);
    BIO_meth_set_ctrl(method, redis_bio_control);
    return method;
}

/* ---- the context ---- */

/** Nobody is asked for a pass phrase: OpenSSL's own way would be the terminal. */
static int on_redis_pass_phrase(char *text, int size, int writing, void *user)
{
    (void)text, (void)size, (void)writing, (void)user;
    return -1;
}

/** What is wrong with the files: NULL, or which of them, its path in `*path`. */
static const char *redis_tls_load(SSL_CTX *context, const sl_redis_options *options,
                                  const char **path)
{
    *path = options->ca_file ? options->ca_file : default_authorities;
    if (options->verify && SSL_CTX_load_verify_file(context, *path) != 1)
        return "authorities";
    *path = options->certificate;
    if (*path && SSL_CTX_use_certificate_chain_file(context, *path) != 1)
        return "certificate";
    *path = options->key;
    if (*path && (SSL_CTX_use_PrivateKey_file(context, *path, SSL_FILETYPE_PEM) != 1 ||
                  SSL_CTX_check_private_key(context) != 1))
        return "key";
    return NULL;
}

/** The innermost cause, which is the first one of OpenSSL's list. */
static const char *first_cause(void)
{
    unsigned long code = ERR_peek_error();
    const char *cause = ERR_GET_LIB(code) == ERR_LIB_SYS ? strerror(ERR_GET_REASON(code))
                                                         : ERR_reason_error_string(code);
    return cause ? cause : "OpenSSL does not say why";
}

static void redis_tls_set(SSL_CTX *context, bool verify)
{
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify(context, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_default_passwd_cb(context, on_redis_pass_phrase);
}

sl_redis_tls *sl_redis_tls_new(sl_core *core, const sl_redis_options *options, char *error,
                               size_t size)
{
    const char *path;
    ERR_clear_error();
    sl_redis_tls *tls = sl_alloc_array(core, 1, sizeof *tls);
    if (!tls)
        return NULL;
    tls->core = core;
    tls->verify = options->verify;
    tls->context = SSL_CTX_new(TLS_client_method());
    tls->method = redis_bio_method();
    if (tls->context && tls->method) {
        redis_tls_set(tls->context, options->verify);
        const char *wrong = redis_tls_load(tls->context, options, &path);
        if (!wrong)
            return tls;
        snprintf(error, size, "the %s %s: %s", wrong, path, first_cause());
    }
    sl_redis_tls_delete(tls);
    return NULL;
}

void sl_redis_tls_delete(sl_redis_tls *tls)
{
    if (!tls)
        return;
    if (tls->context)
        SSL_CTX_free(tls->context);
    if (tls->method)
        BIO_meth_free(tls->method);
    sl_free(tls->core, tls);
    ERR_clear_error();
}

/* ---- one connection ---- */

/** The name or address that the certificate must be for; a name is told to the server, too. */
static int redis_tls_expect(SSL *ssl, const char *name)
{
    unsigned char address[sizeof(struct in6_addr)];
    X509_VERIFY_PARAM *expected = SSL_get0_param(ssl);
    if (!name)
        return 1;
    if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(expected, name);
    return X509_VERIFY_PARAM_set1_host(expected, name, 0) && SSL_set_tlsext_host_name(ssl, name);
}

int sl_redis_tls_open(sl_redis *c)
{
    const sl_redis_tls *tls = c->server->tls;
    ERR_clear_error();
    SSL *ssl = SSL_new(tls->context);
    BIO *bio = ssl ? BIO_new(tls->method) : NULL;
    if (!bio || redis_tls_expect(ssl, c->server->server_name) != 1) {
        if (bio)
            BIO_free(bio);
        if (ssl)
            SSL_free(ssl);
        return -1;
    }
    BIO_set_data(bio, c);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_connect_state(ssl);
    c->ssl = ssl;
    return 0;
}

/** Whether it only waits for the socket. */
static bool tls_waits(sl_redis *c, int result)
{
    int error = SSL_get_error(c->ssl, result);
    c->tls_wants_write = error == SSL_ERROR_WANT_WRITE;
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

int sl_redis_tls_handshake(sl_redis *c)
{
    ERR_clear_error();
    errno = 0;
    int result = SSL_do_handshake(c->ssl);
    if (result == 1) {
        c->tls_wants_write = false;
        return 1;
    }
    if (tls_waits(c, result))
        return 0;
    long verdict = SSL_get_verify_result(c->ssl);
    const char *cause = "the server closed the connection (does it speak TLS?)";
    if (verdict != X509_V_OK && c->server->tls->verify)
        cause = X509_verify_cert_error_string(verdict);
    else if (ERR_peek_error() != 0)
        cause = first_cause();
    sl_redis_fail(c, "TLSError", "TLS: %s", cause);
    ERR_clear_error();
    return -1;
}

/** -1 with errno, or 0 where the other side has ended. */
static ssize_t redis_tls_failure(sl_redis *c, int result)
{
    errno = 0;
    bool waits = tls_waits(c, result);
    bool ended = SSL_get_error(c->ssl, result) == SSL_ERROR_ZERO_RETURN;
    unsigned long first = ERR_peek_error();
    if (ERR_GET_LIB(first) == ERR_LIB_SSL &&
        ERR_GET_REASON(first) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        ended = true; /* replies have lengths: nothing is cut off unseen */
    ERR_clear_error();
    if (ended && !waits)
        return 0;
    errno = waits ? EAGAIN : ECONNRESET;
    return -1;
}

ssize_t sl_redis_tls_receive(sl_redis *c, char *bytes, size_t size)
{
    size_t got;
    ERR_clear_error();
    int result = SSL_read_ex(c->ssl, bytes, size, &got);
    if (result > 0) {
        c->tls_wants_write = false;
        return (ssize_t)got;
    }
    return redis_tls_failure(c, result);
}

ssize_t sl_redis_tls_send(sl_redis *c, const char *bytes, size_t length)
{
    size_t sent;
    ERR_clear_error();
    int result = SSL_write_ex(c->ssl, bytes, length, &sent);
    if (result > 0)
        return (ssize_t)sent;
    ssize_t failure = redis_tls_failure(c, result);
    if (failure == 0)
        errno = EPIPE;
    return -1;
}

void sl_redis_tls_close(sl_redis *c)
{
    SSL *ssl = c->ssl;
    c->ssl = NULL;
    ERR_clear_error();
    if (SSL_is_init_finished(ssl) && !(SSL_get_shutdown(ssl) & SSL_SENT_SHUTDOWN))
        (void)SSL_shutdown(ssl);
    SSL_free(ssl);
    ERR_clear_error();
}
