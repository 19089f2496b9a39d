# SPDX-License-Identifier: MIT
# pages that change hands below hot loops
/mnt/remap
