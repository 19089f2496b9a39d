# Counts the requests that it answers, in memory alone.
use IO::Socket::INET;

my $s = IO::Socket::INET->new(LocalPort => 3000, Listen => 16, ReuseAddr => 1) or die;
for (my $n = 1; my $c = $s->accept; $n++) {
	while (my $l = <$c>) { last if $l =~ /^\r?\n$/ }
	print $c "HTTP/1.0 200 OK\r\nContent-Length: ", length("$n\n"), "\r\n\r\n$n\n";
	close $c;
}
