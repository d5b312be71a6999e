/* SPDX-License-Identifier: MIT */
/* Where a bundle begins in this program: what `sluice bundle` writes into the copy that it makes.
 */
#ifndef SL_HOST_BUNDLE_SLOT_H
#define SL_HOST_BUNDLE_SLOT_H

#include <stdbool.h>

/** Whether there is a script behind this program. */
bool bundle_is_there(void);
/** "OFFSET SIZE CHECKSUM" of the bundle in decimal, "" where there is none. Static. */
const char *bundle_place_text(void);

#endif
