# SPDX-License-Identifier: MIT
# HotSpot: a compiler compiled by it, then code that it patches as classes come
cd /tmp
cp /mnt/Hot.java .
javac -g:none -d . Hot.java && cat *.class | sha256sum
for o in -XX:TieredStopAtLevel=1 -XX:-TieredCompilation -XX:+UseSerialGC -XX:+UseZGC; do
	java $o -Xmx600m Hot
done
