# A small web server that forks for each connection. What it does wrong is in $MODE.
use strict;
use IO::Socket::INET;

$| = 1;
$SIG{CHLD} = 'IGNORE';
$SIG{PIPE} = 'IGNORE';
my $mode = $ENV{MODE} // 'well';
my $commit = $mode eq 'liar' ? 'f' x 40 : $ENV{TOWPATH_SOURCE_COMMIT};
print "starting version $ENV{VERSION} in mode $mode\n";
sleep 2 if $mode eq 'slow';
if ($mode eq 'crash') { print STDERR "no database at db:5432\n"; exit 3; }
my $port = $mode eq 'elsewhere' ? 3000 : $ENV{PORT};
my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 512, ReuseAddr => 1)
    or die "cannot listen: $!";
print "listening on $port\n";

while (1) {
    my $client = $socket->accept or next;
    next if fork;
    serve($client);
    exit 0;
}

sub serve {
    my ($client) = @_;
    my ($request, %headers) = scalar <$client>;
    return unless defined $request;
    my ($method, $path) = split ' ', $request;
    while (defined(my $line = <$client>)) {
        $line =~ s/\r?\n$//;
        last if $line eq '';
        my ($name, $value) = split /:\s*/, $line, 2;
        $headers{lc $name} = $value;
    }
    if ($path eq '/health') {
        my $status = $mode eq 'sick' ? '500 Internal Server Error' : '200 OK';
        print STDERR "health is asked: $status\n" if $mode eq 'sick';
        answer($client, $status, "{\"version\":\"$ENV{VERSION}\",\"build\":{\"commit\":\"$commit\"}}");
    } elsif ($path =~ m{^/slow/(\d+)}) {
        select undef, undef, undef, $1 / 1000;
        answer($client, '200 OK', $ENV{VERSION});
    } elsif ($path =~ m{^/big/(\d+)}) {
        my $block = 'x' x 65536;
        print $client "HTTP/1.1 200 OK\r\nContent-Length: " . ($1 * 65536) . "\r\n\r\n";
        print $client $block or exit 1 for 1 .. $1;
    } elsif ($path eq '/count') {
        my ($got, $buffer) = (0, '');
        if (defined $headers{'content-length'}) {
            while ($got < $headers{'content-length'}) {
                my $read = read($client, $buffer, 65536) or last;
                $got += $read;
            }
        } else {
            while (defined(my $size = <$client>)) {
                my $length = hex $size or last;
                read($client, $buffer, $length + 2);
                $got += $length;
            }
        }
        answer($client, '200 OK', $got);
    } elsif ($path eq '/headers') {
        answer($client, '200 OK', join '', map { "$_: $headers{$_}\n" } sort keys %headers);
    } elsif ($path eq '/echo' && lc($headers{upgrade} // '') eq 'echo') {
        print $client "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
        $client->flush;
        while (defined(my $line = <$client>)) { print $client "$ENV{VERSION} $line"; $client->flush; }
    } elsif ($path eq '/die') {
        kill 'KILL', getppid;
        answer($client, '200 OK', 'dying');
    } elsif ($path eq '/environment') {
        answer($client, '200 OK', join '', map { "$_=$ENV{$_}\n" } sort keys %ENV);
    } else {
        answer($client, '200 OK', $ENV{VERSION});
    }
}

sub answer {
    my ($client, $status, $body) = @_;
    print $client "HTTP/1.1 $status\r\nX-Build: $commit\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
    $client->flush;
}
