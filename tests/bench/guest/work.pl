# SPDX-License-Identifier: MIT
# work.pl FILE - words, numbers and regular expressions, for the CPU benchmark.
use strict;
use warnings;

my (%count, $sum, $swapped);
$sum = 0;
while (<>) {
	last if $. > 5000;
	$count{$_}++ for split;
	$sum += $1 while /\b(\d+)\b/g;
	(my $line = $_) =~ s/w([0-9a-f]+)ord/<$1>/g;
	$swapped .= scalar reverse substr($line, 0, 9) if $line =~ /^<.*?(\d)\1.*>/;
}
my @top = (sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count)[0 .. 19];
print "$_ $count{$_}\n" for @top;
printf "%d words, sum %d, %d, %s\n", scalar keys %count, $sum, length $swapped,
	unpack '%32C*', $swapped;
