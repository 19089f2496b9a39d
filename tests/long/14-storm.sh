# SPDX-License-Identifier: MIT
# all kinds of registers under signals, threads and processes
/mnt/storm
