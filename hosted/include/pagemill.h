/* pagemill for C programs: options, accounts and numbers of the heap at run time.
 *
 * libpagemill.so exports these functions, and so does a Rust program that calls `pagemill_hosted::export_c!()`. A program that
 * is to run without pagemill too declares them weak, by defining PAGEMILL_WEAK before it includes this, and asks whether
 * they are there: `if (pagemill_trim) pagemill_trim();`.
 *
 * Each answers 0 or an error number of <errno.h>, and leaves `errno` alone. None allocates, but pagemill_dump
 * and a thread in the background that is started by pagemill_set("background_thread", "true"). All may be called by several threads at once, and none in a
 * signal handler.
 */
#ifndef PAGEMILL_H
#define PAGEMILL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef PAGEMILL_WEAK
#define PAGEMILL_FUNCTION __attribute__((weak))
#else
#define PAGEMILL_FUNCTION
#endif

/* Copies the value of an option, as PAGEMILL_CONF would name it, into `value`, which has room for `bytes` with the 0 at its end.
 *
 * ENOENT: there is no such option.  ERANGE: it was cut to fit.  EINVAL: null, or no room at all.
 */
PAGEMILL_FUNCTION int pagemill_get(const char *name, char *value, size_t bytes);

/* Changes an option from now on: pagemill_set("limit", "512m").
 *
 * ENOENT: there is no such option.  EINVAL: the value is none for it.  EPERM: it is read when the program starts (reserve, numa,
 * level, prof_prefix, prof_signal).  EBUSY: more is in use than the limit.  Others: what the system said. Then nothing has
 * changed.
 */
PAGEMILL_FUNCTION int pagemill_set(const char *name, const char *value);

enum pagemill_format { PAGEMILL_TEXT = 0, PAGEMILL_JSON = 1 };

/* Writes the account of the heap to a file descriptor: tables for people, or a line of JSON.
 *
 * EINVAL: no such format.  EIO: the file does not take it.
 */
PAGEMILL_FUNCTION int pagemill_report(int fd, int format);

/* A number of that account, by its name in the JSON:
 *
 *   memory_bytes mapped_bytes limit_bytes used_bytes free_bytes dirty_bytes kept_bytes given_back_bytes moved_bytes lost_at_fork
 *   resident_bytes huge_bytes locked_bytes swapped_bytes mappings faults
 *
 * Those of the second line come from the system and cost a millisecond; without a limit `limit_bytes` is UINT64_MAX.
 *
 * ENOENT: there is no such number, or the system does not tell it.  EINVAL: null.
 */
PAGEMILL_FUNCTION int pagemill_stat(const char *name, uint64_t *value);

/* Gives everything back to the system that is idle. Answers how many bytes there were pages behind. */
PAGEMILL_FUNCTION size_t pagemill_trim(void);

/* Writes a heap profile to a file of this path; with NULL, to one whose path begins with the option prof_prefix.
 *
 * Samples are taken while the option prof is true. ENOSYS: the heap was built without profiles. Others: what the system said.
 */
PAGEMILL_FUNCTION int pagemill_dump(const char *path);

#ifdef __cplusplus
}
#endif

#endif
