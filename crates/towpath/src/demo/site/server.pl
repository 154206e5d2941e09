#!/usr/bin/perl
# A small web server: a process for each connection, HTTP/1.1 with keep-alive.
use strict;
use warnings;
use IO::Socket::INET;
use POSIX ();

my $root = $ENV{SITE_ROOT} || '/srv/site';
my $port = $ENV{PORT} // 8080;

# Without this file the site is not well.
my $needed = "$root/index.html";

# A connection that says nothing for so many seconds is closed.
my $idle = 75;
my $longest_head = 16_384;
my $most_seconds = 30;

my $build = $ENV{TOWPATH_SOURCE_COMMIT} || content("$root/commit") || 'unknown';
$build =~ s/[^0-9A-Za-z._:-]//g;

my $ending = 0;
$SIG{TERM} = $SIG{INT} = sub { $ending = 1 };
$SIG{PIPE} = 'IGNORE';
$SIG{CHLD} = sub { 1 while waitpid(-1, POSIX::WNOHANG()) > 0 };

sub content {
    my ($path) = @_;
    open my $file, '<:raw', $path or return;
    local $/;
    return scalar <$file>;
}

# Waits until there is something to read; false when it is time to stop, or nothing came.
sub readable {
    my ($socket, $seconds) = @_;
    for (1 .. $seconds * 2) {
        return 0 if $ending;
        my $bits = '';
        vec($bits, fileno($socket), 1) = 1;
        # A short wait: a signal that comes just before it is then not missed for long.
        return 1 if select($bits, undef, undef, 0.5) > 0;
    }
    return 0;
}

sub pause {
    my ($left) = @_;
    my $found = -1;
    ($found, $left) = select(undef, undef, undef, $left) while $found < 0 && $left > 0;
}

sub read_head {
    my ($client, $buffer) = @_;
    while ($$buffer !~ /\r?\n\r?\n/) {
        return if length $$buffer > $longest_head || !readable($client, $idle);
        my $read = sysread $client, $$buffer, 4096, length $$buffer;
        return if defined $read ? $read == 0 : !$!{EINTR};
    }
    $$buffer =~ s/\A(.*?\r?\n)\r?\n//s;
    return $1;
}

sub skip_body {
    my ($client, $buffer, $length) = @_;
    while (length $$buffer < $length) {
        $length -= length $$buffer;
        return 0 if !readable($client, $idle);
        my $read = sysread $client, $$buffer, 65_536;
        return 0 if !$read;
    }
    substr $$buffer, 0, $length, '';
    return 1;
}

sub answer {
    my ($client, $request, $status, $type, $body) = @_;
    my $connection = $request->{close} ? 'close' : 'keep-alive';
    my $head = "HTTP/1.1 $status\r\nContent-Type: $type\r\nContent-Length: " . length($body)
        . "\r\nX-Build-Identity: $build\r\nConnection: $connection\r\n\r\n";
    print {$client} $head, $request->{method} eq 'HEAD' ? () : $body;
}

sub health {
    my ($client, $request) = @_;
    return answer($client, $request, '200 OK', 'text/plain', "well\n") if -r $needed;
    warn "health: $needed: $!\n";
    answer($client, $request, '503 Service Unavailable', 'text/plain', "not well\n");
}

sub page {
    my ($client, $request) = @_;
    my $page = content("$root/index.html");
    return answer($client, $request, '200 OK', 'text/html; charset=utf-8', $page) if defined $page;
    warn "page: $root/index.html: $!\n";
    answer($client, $request, '500 Internal Server Error', 'text/plain', "the page cannot be read\n");
}

# Answers a line each second: a request that takes its time.
sub slow {
    my ($client, $request, $seconds) = @_;
    $seconds = $most_seconds if $seconds > $most_seconds;
    my $chunked = $request->{version} eq '1.1';
    $request->{close} = 1 if !$chunked;
    my $connection = $request->{close} ? 'close' : 'keep-alive';
    my $coding = $chunked ? "Transfer-Encoding: chunked\r\n" : '';
    print {$client} "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n${coding}X-Build-Identity: $build\r\n"
        . "Cache-Control: no-store\r\nConnection: $connection\r\n\r\n";
    for my $second (1 .. $seconds) {
        pause(1);
        my $line = "$second of $seconds, build $build\n";
        print {$client} $chunked ? sprintf("%x\r\n%s\r\n", length $line, $line) : $line;
    }
    print {$client} "0\r\n\r\n" if $chunked;
}

sub serve {
    my ($client) = @_;
    my $buffer = '';
    while (defined(my $head = read_head($client, \$buffer))) {
        my %request = (method => 'GET', close => 1);
        if ($head !~ m{\A([A-Z]+) (/[^\s?]*)(?:\?(\S*))? HTTP/(1\.[01])\r?\n}) {
            return answer($client, \%request, '400 Bad Request', 'text/plain', "not HTTP/1.1\n");
        }
        my ($method, $path, $query, $version) = ($1, $2, $3 // '', $4);
        my $close = $version eq '1.0' ? $head !~ /^connection:[^\n]*keep-alive/im : $head =~ /^connection:[^\n]*close/im;
        %request = (method => $method, version => $version, close => $close || $ending);
        my ($length) = $head =~ /^content-length:\s*(\d+)/im;
        if ($head =~ /^transfer-encoding:/im || ($length && !skip_body($client, \$buffer, $length))) {
            $request{close} = 1;
            return answer($client, \%request, '411 Length Required', 'text/plain', "say how long the body is\n");
        }
        if ($method ne 'GET' && $method ne 'HEAD') {
            answer($client, \%request, '405 Method Not Allowed', 'text/plain', "only GET and HEAD\n");
        } elsif ($path eq '/' || $path eq '/index.html') {
            page($client, \%request);
        } elsif ($path eq '/health') {
            health($client, \%request);
        } elsif ($path eq '/slow' && $query =~ /\bseconds=(\d{1,4})/) {
            slow($client, \%request, $1);
        } else {
            answer($client, \%request, '404 Not Found', 'text/plain', "there is no $path here\n");
        }
        return if $request{close};
    }
}

my $server = IO::Socket::INET->new(LocalPort => $port, Listen => 128, ReuseAddr => 1)
    or die "cannot listen on port $port: $@\n";
warn "serving $root on port ", $server->sockport, ", build $build\n";

my %children;
while (!$ending) {
    next if !readable($server, 3600);
    my $client = $server->accept or next;
    my $child = fork;
    if (!defined $child) {
        warn "cannot fork: $!\n";
    } elsif ($child == 0) {
        close $server;
        serve($client);
        close $client;
        POSIX::_exit(0);
    } else {
        $children{$child} = 1;
        delete @children{grep { !kill 0, $_ } keys %children} if keys %children > 256;
    }
}
close $server;
kill TERM => keys %children;
$SIG{CHLD} = 'DEFAULT';
1 while waitpid(-1, 0) > 0;
warn "stopped\n";
