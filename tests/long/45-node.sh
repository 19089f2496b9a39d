# SPDX-License-Identifier: MIT
# V8: its compilers, with code that is made, thrown away and made again
cd /tmp
node /mnt/hot.js
node --always-opt /mnt/hot.js
node --stress-compaction --max-semi-space-size=1 /mnt/hot.js
node --interpreted-frames-native-stack --jitless /mnt/hot.js 2>/dev/null
