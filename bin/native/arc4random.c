/* libstdc++ draws random numbers with arc4random where the machine that it was built on has
 * one (glibc 2.36). Linked statically, that would bind the executable to such a glibc. This
 * one asks the kernel, as glibc's does, and needs glibc 2.25. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/random.h>

__attribute__((visibility("hidden"))) uint32_t arc4random(void)
{
    uint32_t number;
    /* So few bytes are never torn; only the wait for the first entropy after boot can be
     * interrupted. */
    while (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number) {
        if (errno != EINTR)
            abort();
    }
    return number;
}
