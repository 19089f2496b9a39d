# SPDX-License-Identifier: MIT
# random programs of many blocks, faults, changes of code, under a timer
/mnt/hotcode "${SEED:-1}" 150
