/* SPDX-License-Identifier: MIT */
/*
 * libcurl, OpenSSL and SQLite for the program, loaded when they are first called.
 *
 * The loader takes some four times as long for libcurl and the 33 libraries behind it as a whole
 * short script takes, and most of the memory; a script that makes no request needs neither. So the
 * program links these functions instead, each of which finds the real one by name. libsluice and
 * the rock link the libraries as usual.
 */
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#ifndef SLUICE_WITHOUT_SQLITE
#include <sqlite3.h>
#endif

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#undef curl_easy_getinfo
#undef curl_easy_setopt
#undef curl_multi_setopt

/** One of the libraries; the program's, like the linker's own tables. */
typedef struct lazy_library {
    const char *name;
    void *handle;
} lazy_library;

static lazy_library lazy_curl = {.name = "libcurl.so.4"};
static lazy_library lazy_ssl = {.name = "libssl.so.3"};
static lazy_library lazy_crypto = {.name = "libcrypto.so.3"};
#ifndef SLUICE_WITHOUT_SQLITE
static lazy_library lazy_sqlite = {.name = "libsqlite3.so.0"};
#endif

static void *lazy_symbol(lazy_library *library, const char *name)
{
    if (!library->handle)
        library->handle = dlopen(library->name, RTLD_NOW | RTLD_LOCAL);
    void *symbol = library->handle ? dlsym(library->handle, name) : NULL;
    if (!symbol) {
        /* as where a linked library is missing, but only now */
        fprintf(stderr, "sluice: %s\n", dlerror());
        _Exit(127);
    }
    return symbol;
}

#define LAZY(library, result, name, parameters, arguments)                                         \
    result name parameters                                                                         \
    {                                                                                              \
        static result(*real) parameters;                                                           \
        if (!real)                                                                                 \
            *(void **)&real = lazy_symbol(&lazy_##library, #name);                                 \
        return real arguments;                                                                     \
    }

#define LAZY_VOID(library, name, parameters, arguments)                                            \
    void name parameters                                                                           \
    {                                                                                              \
        static void(*real) parameters;                                                             \
        if (!real)                                                                                 \
            *(void **)&real = lazy_symbol(&lazy_##library, #name);                                 \
        real arguments;                                                                            \
    }

/* A long, a pointer and a curl_off_t are passed alike as the one variable argument: in a general
 * register of 64 bits, on every Linux that this builds on. */
#define LAZY_VARIADIC(library, result, name, handle_type, option_type)                             \
    result name(handle_type *handle, option_type option, ...)                                      \
    {                                                                                              \
        static result (*real)(handle_type *, option_type, ...);                                    \
        va_list arguments;                                                                         \
        va_start(arguments, option);                                                               \
        void *argument = va_arg(arguments, void *);                                                \
        va_end(arguments);                                                                         \
        if (!real)                                                                                 \
            *(void **)&real = lazy_symbol(&lazy_##library, #name);                                 \
        return real(handle, option, argument);                                                     \
    }

_Static_assert(sizeof(long) == sizeof(void *) && sizeof(curl_off_t) == sizeof(void *),
               "the forwarding of variable arguments needs 64 bits");

#ifndef SLUICE_WITHOUT_SQLITE
/* The settings that are used here take an int and a pointer. */
int sqlite3_db_config(sqlite3 *db, int setting, ...)
{
    static int (*real)(sqlite3 *, int, ...);
    va_list arguments;
    va_start(arguments, setting);
    int value = va_arg(arguments, int);
    int *result = va_arg(arguments, int *);
    va_end(arguments);
    if (!real)
        *(void **)&real = lazy_symbol(&lazy_sqlite, "sqlite3_db_config");
    return real(db, setting, value, result);
}
#endif

/* ---- libcurl ---- */

LAZY(curl, CURLcode, curl_global_init, (long flags), (flags))
LAZY(curl, curl_version_info_data *, curl_version_info, (CURLversion age), (age))
LAZY(curl, CURL *, curl_easy_init, (void), ())
LAZY_VOID(curl, curl_easy_cleanup, (CURL * easy), (easy))
LAZY(curl, CURLcode, curl_easy_pause, (CURL * easy, int mask), (easy, mask))
LAZY(curl, const char *, curl_easy_strerror, (CURLcode code), (code))
LAZY_VARIADIC(curl, CURLcode, curl_easy_setopt, CURL, CURLoption)
LAZY_VARIADIC(curl, CURLcode, curl_easy_getinfo, CURL, CURLINFO)
LAZY(curl, CURLM *, curl_multi_init, (void), ())
LAZY(curl, CURLMcode, curl_multi_cleanup, (CURLM * multi), (multi))
LAZY(curl, CURLMcode, curl_multi_add_handle, (CURLM * multi, CURL *easy), (multi, easy))
LAZY(curl, CURLMcode, curl_multi_remove_handle, (CURLM * multi, CURL *easy), (multi, easy))
LAZY(curl, CURLMcode, curl_multi_assign, (CURLM * multi, curl_socket_t fd, void *data),
     (multi, fd, data))
LAZY(curl, CURLMsg *, curl_multi_info_read, (CURLM * multi, int *left), (multi, left))
LAZY(curl, CURLMcode, curl_multi_socket_action,
     (CURLM * multi, curl_socket_t fd, int events, int *running), (multi, fd, events, running))
LAZY_VARIADIC(curl, CURLMcode, curl_multi_setopt, CURLM, CURLMoption)
LAZY(curl, CURLU *, curl_url, (void), ())
LAZY_VOID(curl, curl_url_cleanup, (CURLU * url), (url))
LAZY(curl, CURLUcode, curl_url_get, (CURLU * url, CURLUPart part, char **text, unsigned flags),
     (url, part, text, flags))
LAZY(curl, CURLUcode, curl_url_set, (CURLU * url, CURLUPart part, const char *text, unsigned flags),
     (url, part, text, flags))
LAZY_VOID(curl, curl_free, (void *block), (block))

/* ---- OpenSSL ---- */

LAZY(crypto, int, BIO_free, (BIO * bio), (bio))
LAZY(crypto, BIO *, BIO_new, (const BIO_METHOD *method), (method))
LAZY(crypto, BIO_METHOD *, BIO_meth_new, (int type, const char *name), (type, name))
LAZY_VOID(crypto, BIO_meth_free, (BIO_METHOD * method), (method))
LAZY(crypto, int, BIO_meth_set_ctrl, (BIO_METHOD * method, long (*ctrl)(BIO *, int, long, void *)),
     (method, ctrl))
LAZY(crypto, int, BIO_meth_set_read, (BIO_METHOD * method, int (*function)(BIO *, char *, int)),
     (method, function))
LAZY(crypto, int, BIO_meth_set_write,
     (BIO_METHOD * method, int (*function)(BIO *, const char *, int)), (method, function))
LAZY_VOID(crypto, BIO_set_data, (BIO * bio, void *data), (bio, data))
LAZY(crypto, void *, BIO_get_data, (BIO * bio), (bio))
LAZY_VOID(crypto, BIO_set_init, (BIO * bio, int init), (bio, init))
LAZY_VOID(crypto, BIO_set_flags, (BIO * bio, int flags), (bio, flags))
LAZY_VOID(crypto, BIO_clear_flags, (BIO * bio, int flags), (bio, flags))
LAZY_VOID(crypto, ERR_clear_error, (void), ())
LAZY(crypto, EVP_MD *, EVP_MD_fetch,
     (OSSL_LIB_CTX * context, const char *algorithm, const char *properties),
     (context, algorithm, properties))
LAZY_VOID(crypto, EVP_MD_free, (EVP_MD * algorithm), (algorithm))
LAZY(crypto, EVP_MD_CTX *, EVP_MD_CTX_new, (void), ())
LAZY_VOID(crypto, EVP_MD_CTX_free, (EVP_MD_CTX * context), (context))
LAZY(crypto, int, EVP_DigestInit_ex2,
     (EVP_MD_CTX * context, const EVP_MD *algorithm, const OSSL_PARAM *parameters),
     (context, algorithm, parameters))
LAZY(crypto, int, EVP_DigestUpdate, (EVP_MD_CTX * context, const void *bytes, size_t size),
     (context, bytes, size))
LAZY(crypto, int, EVP_DigestFinal_ex, (EVP_MD_CTX * context, unsigned char *digest, unsigned *size),
     (context, digest, size))
LAZY(crypto, unsigned long, ERR_peek_error, (void), ())
LAZY(crypto, const char *, ERR_reason_error_string, (unsigned long code), (code))
LAZY(crypto, int, X509_VERIFY_PARAM_set1_host,
     (X509_VERIFY_PARAM * param, const char *name, size_t length), (param, name, length))
LAZY(crypto, int, X509_VERIFY_PARAM_set1_ip_asc, (X509_VERIFY_PARAM * param, const char *address),
     (param, address))
LAZY(crypto, const char *, X509_verify_cert_error_string, (long code), (code))
LAZY(ssl, const SSL_METHOD *, TLS_client_method, (void), ())
LAZY(ssl, const SSL_METHOD *, TLS_server_method, (void), ())
LAZY(ssl, SSL_CTX *, SSL_CTX_new, (const SSL_METHOD *method), (method))
LAZY_VOID(ssl, SSL_CTX_free, (SSL_CTX * context), (context))
LAZY(ssl, long, SSL_CTX_ctrl, (SSL_CTX * context, int command, long number, void *pointer),
     (context, command, number, pointer))
LAZY(ssl, uint64_t, SSL_CTX_set_options, (SSL_CTX * context, uint64_t options), (context, options))
LAZY(ssl, int, SSL_CTX_check_private_key, (const SSL_CTX *context), (context))
LAZY(ssl, int, SSL_CTX_use_PrivateKey_file, (SSL_CTX * context, const char *file, int type),
     (context, file, type))
LAZY(ssl, int, SSL_CTX_use_certificate_chain_file, (SSL_CTX * context, const char *file),
     (context, file))
LAZY(ssl, int, SSL_CTX_load_verify_file, (SSL_CTX * context, const char *file), (context, file))
LAZY_VOID(ssl, SSL_CTX_set_verify, (SSL_CTX * context, int mode, SSL_verify_cb callback),
          (context, mode, callback))
LAZY_VOID(ssl, SSL_CTX_set_default_passwd_cb, (SSL_CTX * context, pem_password_cb *callback),
          (context, callback))
LAZY_VOID(ssl, SSL_CTX_set_alpn_select_cb,
          (SSL_CTX * context, SSL_CTX_alpn_select_cb_func callback, void *data),
          (context, callback, data))
LAZY(ssl, int, SSL_select_next_proto,
     (unsigned char **out, unsigned char *out_size, const unsigned char *server,
      unsigned server_size, const unsigned char *client, unsigned client_size),
     (out, out_size, server, server_size, client, client_size))
LAZY(ssl, SSL *, SSL_new, (SSL_CTX * context), (context))
LAZY_VOID(ssl, SSL_free, (SSL * ssl), (ssl))
LAZY_VOID(ssl, SSL_set_bio, (SSL * ssl, BIO *in, BIO *out), (ssl, in, out))
LAZY_VOID(ssl, SSL_set_accept_state, (SSL * ssl), (ssl))
LAZY_VOID(ssl, SSL_set_connect_state, (SSL * ssl), (ssl))
LAZY(ssl, int, SSL_do_handshake, (SSL * ssl), (ssl))
LAZY(ssl, X509_VERIFY_PARAM *, SSL_get0_param, (SSL * ssl), (ssl))
LAZY(ssl, long, SSL_get_verify_result, (const SSL *ssl), (ssl))
LAZY(ssl, long, SSL_ctrl, (SSL * ssl, int command, long number, void *pointer),
     (ssl, command, number, pointer))
LAZY(ssl, int, SSL_get_error, (const SSL *ssl, int result), (ssl, result))
LAZY(ssl, int, SSL_get_shutdown, (const SSL *ssl), (ssl))
LAZY(ssl, int, SSL_is_init_finished, (const SSL *ssl), (ssl))
LAZY(ssl, int, SSL_shutdown, (SSL * ssl), (ssl))
LAZY(ssl, int, SSL_read_ex, (SSL * ssl, void *buffer, size_t size, size_t *count),
     (ssl, buffer, size, count))
LAZY(ssl, int, SSL_write_ex, (SSL * ssl, const void *buffer, size_t size, size_t *count),
     (ssl, buffer, size, count))

/* ---- SQLite ---- */

#ifndef SLUICE_WITHOUT_SQLITE
LAZY(sqlite, void *, sqlite3_aggregate_context, (sqlite3_context * context, int size),
     (context, size))
LAZY(sqlite, int, sqlite3_bind_blob64,
     (sqlite3_stmt * statement, int place, const void *bytes, sqlite3_uint64 size,
      void (*release)(void *)),
     (statement, place, bytes, size, release))
LAZY(sqlite, int, sqlite3_bind_double, (sqlite3_stmt * statement, int place, double value),
     (statement, place, value))
LAZY(sqlite, int, sqlite3_bind_int64, (sqlite3_stmt * statement, int place, sqlite3_int64 value),
     (statement, place, value))
LAZY(sqlite, int, sqlite3_bind_null, (sqlite3_stmt * statement, int place), (statement, place))
LAZY(sqlite, int, sqlite3_bind_parameter_count, (sqlite3_stmt * statement), (statement))
LAZY(sqlite, const char *, sqlite3_bind_parameter_name, (sqlite3_stmt * statement, int place),
     (statement, place))
LAZY(sqlite, int, sqlite3_bind_text64,
     (sqlite3_stmt * statement, int place, const char *text, sqlite3_uint64 size,
      void (*release)(void *), unsigned char encoding),
     (statement, place, text, size, release, encoding))
LAZY(sqlite, int, sqlite3_busy_handler, (sqlite3 * db, int (*busy)(void *, int), void *user),
     (db, busy, user))
LAZY(sqlite, int, sqlite3_close, (sqlite3 * db), (db))
LAZY(sqlite, const void *, sqlite3_column_blob, (sqlite3_stmt * statement, int column),
     (statement, column))
LAZY(sqlite, int, sqlite3_column_bytes, (sqlite3_stmt * statement, int column), (statement, column))
LAZY(sqlite, int, sqlite3_column_count, (sqlite3_stmt * statement), (statement))
LAZY(sqlite, const char *, sqlite3_column_decltype, (sqlite3_stmt * statement, int column),
     (statement, column))
LAZY(sqlite, double, sqlite3_column_double, (sqlite3_stmt * statement, int column),
     (statement, column))
LAZY(sqlite, sqlite3_int64, sqlite3_column_int64, (sqlite3_stmt * statement, int column),
     (statement, column))
LAZY(sqlite, const char *, sqlite3_column_name, (sqlite3_stmt * statement, int column),
     (statement, column))
LAZY(sqlite, const unsigned char *, sqlite3_column_text, (sqlite3_stmt * statement, int column),
     (statement, column))
LAZY(sqlite, int, sqlite3_column_type, (sqlite3_stmt * statement, int column), (statement, column))
LAZY(sqlite, int, sqlite3_create_function_v2,
     (sqlite3 * db, const char *name, int arguments, int flags, void *user,
      void (*function)(sqlite3_context *, int, sqlite3_value **),
      void (*step)(sqlite3_context *, int, sqlite3_value **), void (*finish)(sqlite3_context *),
      void (*release)(void *)),
     (db, name, arguments, flags, user, function, step, finish, release))
LAZY(sqlite, const char *, sqlite3_errmsg, (sqlite3 * db), (db))
LAZY(sqlite, const char *, sqlite3_errstr, (int code), (code))
LAZY(sqlite, int, sqlite3_exec,
     (sqlite3 * db, const char *sql, int (*row)(void *, int, char **, char **), void *user,
      char **message),
     (db, sql, row, user, message))
LAZY(sqlite, int, sqlite3_extended_errcode, (sqlite3 * db), (db))
LAZY(sqlite, int, sqlite3_finalize, (sqlite3_stmt * statement), (statement))
LAZY_VOID(sqlite, sqlite3_free, (void *block), (block))
LAZY(sqlite, int, sqlite3_get_autocommit, (sqlite3 * db), (db))
LAZY(sqlite, void *, sqlite3_malloc, (int size), (size))
LAZY(sqlite, int, sqlite3_open_v2, (const char *path, sqlite3 **db, int flags, const char *system),
     (path, db, flags, system))
LAZY(sqlite, int, sqlite3_prepare_v2,
     (sqlite3 * db, const char *sql, int size, sqlite3_stmt **statement, const char **tail),
     (db, sql, size, statement, tail))
LAZY_VOID(sqlite, sqlite3_progress_handler,
          (sqlite3 * db, int operations, int (*progress)(void *), void *user),
          (db, operations, progress, user))
LAZY(sqlite, int, sqlite3_reset, (sqlite3_stmt * statement), (statement))
LAZY_VOID(sqlite, sqlite3_result_blob64,
          (sqlite3_context * context, const void *bytes, sqlite3_uint64 size,
           void (*release)(void *)),
          (context, bytes, size, release))
LAZY_VOID(sqlite, sqlite3_result_double, (sqlite3_context * context, double value),
          (context, value))
LAZY_VOID(sqlite, sqlite3_result_error, (sqlite3_context * context, const char *text, int size),
          (context, text, size))
LAZY_VOID(sqlite, sqlite3_result_error_nomem, (sqlite3_context * context), (context))
LAZY_VOID(sqlite, sqlite3_result_int, (sqlite3_context * context, int value), (context, value))
LAZY_VOID(sqlite, sqlite3_result_int64, (sqlite3_context * context, sqlite3_int64 value),
          (context, value))
LAZY_VOID(sqlite, sqlite3_result_null, (sqlite3_context * context), (context))
LAZY_VOID(sqlite, sqlite3_result_text64,
          (sqlite3_context * context, const char *text, sqlite3_uint64 size,
           void (*release)(void *), unsigned char encoding),
          (context, text, size, release, encoding))
LAZY(sqlite, int, sqlite3_set_authorizer,
     (sqlite3 * db,
      int (*authorize)(void *, int, const char *, const char *, const char *, const char *),
      void *user),
     (db, authorize, user))
LAZY(sqlite, int, sqlite3_step, (sqlite3_stmt * statement), (statement))
LAZY(sqlite, int, sqlite3_stmt_readonly, (sqlite3_stmt * statement), (statement))
LAZY(sqlite, int, sqlite3_stmt_status, (sqlite3_stmt * statement, int what, int again),
     (statement, what, again))
LAZY(sqlite, sqlite3_int64, sqlite3_total_changes64, (sqlite3 * db), (db))
LAZY(sqlite, void *, sqlite3_user_data, (sqlite3_context * context), (context))
LAZY(sqlite, const void *, sqlite3_value_blob, (sqlite3_value * value), (value))
LAZY(sqlite, int, sqlite3_value_bytes, (sqlite3_value * value), (value))
LAZY(sqlite, double, sqlite3_value_double, (sqlite3_value * value), (value))
LAZY(sqlite, sqlite3_int64, sqlite3_value_int64, (sqlite3_value * value), (value))
LAZY(sqlite, const unsigned char *, sqlite3_value_text, (sqlite3_value * value), (value))
LAZY(sqlite, int, sqlite3_value_type, (sqlite3_value * value), (value))
#endif
