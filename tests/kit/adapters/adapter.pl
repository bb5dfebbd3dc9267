#!/usr/bin/perl
# A snapshotter and a manager of refs in memory, behind the protocol of `exec:`, in Perl with its core modules alone.
#
# A size takes a while: it waits in @later while other calls are read, and may be cancelled there; everything else is done
# at once. With --broken a commit keeps the labels of the active snapshot, and a mutable record is given to write while what
# was committed of it is held.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use IO::Select;
use JSON::PP;
use Time::HiRes qw(clock_gettime CLOCK_REALTIME);
use Trees qw(text_of usage_of);

my $BROKEN = grep { $_ eq '--broken' } @ARGV;
print STDERR "this is the broken twin\n" if $BROKEN;
my $JSON = JSON::PP->new->utf8->allow_nonref->canonical;
my ($TRUE, $FALSE) = (JSON::PP::true, JSON::PP::false);

sub refuse { my ($class, $message) = @_; die {error => $class, message => $message} }
sub bool { $_[0] ? $TRUE : $FALSE }

# --- filters of walk

my $QUOTED = qr/"(?:[^"\\\n\0]|\\(?:[abfnrtv\\"]|x[0-7][0-9a-fA-F]|u[0-9a-fA-F]{4}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4}))*"/;
my $FIELD = qr/(?:$QUOTED|[A-Za-z0-9_]+)/;
my %LETTERS = (a => "\a", b => "\b", f => "\f", n => "\n", r => "\r", t => "\t", v => "\x0b", '\\' => '\\', '"' => '"');

sub unquoted {
    my ($text) = @_;
    return $text unless $text =~ /^"/;
    $text = substr $text, 1, -1;
    $text =~ s/\\(?:[xuU]([0-9a-fA-F]{8}|[0-9a-fA-F]{4}|[0-9a-fA-F]{2})|(.))/defined $2 ? $LETTERS{$2} : chr hex $1/ge;
    return $text;
}

sub parse {
    my ($text) = @_;
    my @selectors;
    return \@selectors if $text eq '';
    while (1) {
        $text =~ /\G\s*($FIELD(?:\.\s*$FIELD)*)(?:\s*(==|!=|~=)(?![=!~])\s*($QUOTED|[^\s,.=!~"\/|][^\s,]*))?/gc
            or refuse('InvalidArgument', 'this is no filter');
        my ($path, $operator, $value) = ($1, $2 // '', unquoted($3 // ''));
        push @selectors, [[map { unquoted($_) } $path =~ /$FIELD/g], $operator, $value];
        return \@selectors if pos($text) == length $text;
        $text =~ /\G,/gc or refuse('InvalidArgument', 'this is no filter');
    }
}

sub holds {
    my ($record, $selector) = @_;
    my ($fields, $operator, $wanted) = @$selector;
    my ($first, @rest) = @$fields;
    my $value;
    $value = $record->{labels}{join '.', @rest} if $first eq 'labels' && @rest;
    $value = $record->{$first} if !@rest && $first =~ /^(?:name|parent|kind)$/;
    return !defined $value || $value ne $wanted if $operator eq '!=';
    return 0 unless defined $value;
    return $value eq $wanted if $operator eq '==';
    return 1 if $operator eq '';
    my $pattern = eval { no warnings; qr/$wanted/ };    # an empty match would be the one before once more
    my $found = defined $pattern && $value =~ $pattern;
    return $found;
}

# --- the snapshotter: snapshots by key, each its record and its tree

my %snapshots;

sub snapshot { my ($key) = @_; return $snapshots{$key} // refuse('NotFound', "there is no snapshot $key") }

sub told { my ($record) = @_; return {map { $_ => $record->{$_} } grep { $_ ne 'tree' } keys %$record} }

sub mountable {
    my $found = snapshot($_[0]);
    refuse('FailedPrecondition', 'it is committed') if $found->{kind} eq 'committed';
    return $found;
}

sub now { return int(clock_gettime(CLOCK_REALTIME) * 1e6) * 1000 + 999 }

sub kept { my ($labels) = @_; return {map { $_ => "$labels->{$_}" } grep { $labels->{$_} ne '' } keys %$labels} }

sub enter {
    my ($name, $parent, $kind, $labels, $tree) = @_;
    my $now = now();
    $snapshots{$name} = {
        name => $name, parent => $parent, kind => $kind, labels => kept($labels),
        created => $now, updated => $now, tree => $tree,
    };
}

sub make {
    my ($kind, $asked) = @_;
    my ($key, $parent) = @$asked{qw(key parent)};
    refuse('InvalidArgument', 'the parent is not committed') if $parent ne '' && snapshot($parent)->{kind} ne 'committed';
    refuse('AlreadyExists', 'the key is taken') if $snapshots{$key};
    refuse('InvalidArgument', 'the key is empty') if $key eq '';
    my $tree = $parent eq '' ? Trees->new : $snapshots{$parent}{tree}->copy;
    enter($key, $parent, $kind, $asked->{labels}, $tree);
    return undef;
}

sub commit_snapshot {
    my ($asked) = @_;
    my ($name, $key, $parent) = @$asked{qw(name key parent)};
    my $active = snapshot($key);
    refuse('AlreadyExists', 'the name is taken') if $snapshots{$name};
    refuse('InvalidArgument', 'the name is empty') if $name eq '';
    refuse('FailedPrecondition', 'it is not active') if $active->{kind} ne 'active';
    refuse('InvalidArgument', 'it has another parent') if $parent ne '' && $parent ne $active->{parent};
    my %labels = ($BROKEN ? %{$active->{labels}} : (), %{$asked->{labels}});
    enter($name, $active->{parent}, 'committed', \%labels, $active->{tree});
    delete $snapshots{$key};
    return undef;
}

sub remove_snapshot {
    my ($key) = $_[0]{key};
    snapshot($key);
    refuse('FailedPrecondition', 'it has children') if grep { $_->{parent} eq $key } values %snapshots;
    delete $snapshots{$key};
    return undef;
}

sub update {
    my ($asked) = @_;
    my $record = snapshot($asked->{name});
    refuse('InvalidArgument', 'the mask names more than labels') if grep { $_ ne 'labels' && !/^labels\../s } @{$asked->{mask}};
    my %after = %{$record->{labels}};
    for my $path (@{$asked->{mask}} ? @{$asked->{mask}} : 'labels') {
        if ($path eq 'labels') { %after = %{$asked->{labels}} }
        else { my $label = substr $path, 7; $after{$label} = $asked->{labels}{$label} // '' }
    }
    $record->{labels} = kept(\%after);
    my $now = now();
    $record->{updated} = $now > $record->{created} ? $now : $record->{created};
    return told($record);
}

sub usage {
    my $record = snapshot($_[0]{key});
    return {size => 0, inodes => 0} if $record->{kind} eq 'view';
    my ($size, $inodes) = usage_of($record->{tree}, $record->{parent} eq '' ? Trees->new : $snapshots{$record->{parent}}{tree});
    return {size => $size, inodes => $inodes};
}

sub walk {
    my @wanted = map { parse($_) } @{$_[0]{filters}};
    my @found;
    for my $record (values %snapshots) {
        my $fits = grep { my $all = $_; @$all == grep { holds($record, $_) } @$all } @wanted;
        push @found, told($record) if !@wanted || $fits;
    }
    return \@found;
}

my %SNAPSHOTS = (
    prepare => sub { make('active', $_[0]) },
    view => sub { make('view', $_[0]) },
    commit => \&commit_snapshot,
    remove => \&remove_snapshot,
    mounts => sub { mountable($_[0]{key}); undef },
    stat => sub { told(snapshot($_[0]{key})) },
    update => \&update,
    usage => \&usage,
    walk => \&walk,
    cleanup => sub { undef },
    close => sub { undef },
    open => sub { undef },
    write => sub { my $at = mountable($_[0]{key}); changed($at->{tree}, $at->{kind} eq 'active', $_[0]{changes}) },
    read => sub { mountable($_[0]{key})->{tree}->shown },
);

sub changed {
    my ($tree, $writable, $changes) = @_;
    return [map { $writable ? $tree->change($_) : 'EROFS' } @$changes];
}

# --- refs: records by id, and the id of the record of each open handle; `equal` is the id of the other half of a pair

my (%records, %open, $closed);

sub require_open { refuse('Closed', 'the manager is closed') if $closed }

sub of {
    my ($handle, $mutable) = @_;
    require_open();
    my $record = $records{$open{$handle} // ''} // refuse('Invalid', 'the handle is not open');
    refuse('Invalid', 'the handle is of the other kind') if defined $mutable && $record->{mutable} != $mutable;
    return $record;
}

sub known { my ($id) = @_; require_open(); return $records{$id} // refuse('NotFound', 'there is no such record') }

sub give { my ($handle, $record) = @_; $open{$handle} = $record->{id}; return {record => $record->{id}} }

sub held { my ($id) = @_; return scalar grep { $_ eq $id } values %open }

sub held_pair { my ($record) = @_; return held($record->{id}) || ($record->{equal} ne '' && held($record->{equal})) }

sub settle {
    my ($record) = @_;
    delete $records{$record->{equal}} if $record->{equal} ne '';
    $record->{equal} = '';
    return $record;
}

sub record { my ($id, $mutable, $parent, $tree) = @_; return $records{$id} = {id => $id, mutable => $mutable, parent => $parent, tree => $tree, equal => ''} }

sub pair {
    my ($record, $id) = @_;
    my $made = record($id, 0, $record->{parent}, $record->{tree});
    @$made{'equal'} = $record->{id};
    $record->{equal} = $id;
    return $made;
}

sub children { my ($id) = @_; return grep { $_->{parent} eq $id } values %records }

sub used { my ($record) = @_; return held_pair($record) || grep { used($_) } children($record->{id}) }

sub new_record {
    my ($asked) = @_;
    require_open();
    my $over = defined $asked->{parent} ? settle(of($asked->{parent}, 0)) : undef;
    my $tree = $over ? $over->{tree}->copy : Trees->new;
    return give($asked->{handle}, record($asked->{record}, 1, $over ? $over->{id} : '', $tree));
}

sub get {
    my ($asked) = @_;
    my $found = known($asked->{record});
    return give($asked->{handle}, $found) unless $found->{mutable};
    refuse('Locked', 'it has an open handle') if held($found->{id});
    return give($asked->{handle}, $records{$found->{equal}} // pair($found, $asked->{fresh}));
}

sub get_mutable {
    my ($asked) = @_;
    my $found = known($asked->{record});
    refuse('Invalid', 'it is immutable') unless $found->{mutable};
    refuse('Locked', 'it or its other half has an open handle') if $BROKEN ? held($found->{id}) : held_pair($found);
    return give($asked->{handle}, settle($found));
}

sub commit_ref {
    my ($asked) = @_;
    my $record = of($asked->{handle}, 1);
    delete $open{$asked->{handle}};
    return give($asked->{given}, pair($record, $asked->{fresh}));
}

sub parent {
    my $record = of($_[0]{handle});
    return $record->{parent} eq '' ? undef : give($_[0]{given}, $records{$record->{parent}});
}

sub measure {
    my ($record) = @_;
    return (usage_of($record->{tree}, $record->{parent} eq '' ? Trees->new : $records{$record->{parent}}{tree}))[0];
}

# The two parts of a size: what is measured, and, later, what is answered.
sub size_begins { my $record = of($_[0]{handle}); return ($record, $record->{size} // measure($record)) }

sub size_ends {
    my ($asked, $record, $size) = @_;
    of($asked->{handle});
    $record->{size} = $size unless $record->{mutable};
    return $size;
}

sub mounted {
    my ($handle, $readonly) = @_;
    my $record = of($handle);
    settle($record) unless $record->{mutable} || $readonly;
    return $record;
}

sub rows {
    require_open();
    my @rows;
    for my $record (values %records) {
        my $shows = $record->{equal} eq '' || $record->{mutable} != !!held($record->{mutable} ? $record->{equal} : $record->{id});
        next unless $shows;
        my $used = used($record);
        $record->{size} //= measure($record) unless $record->{mutable};
        my $size = $record->{size} // ($used ? 0 : measure($record));
        push @rows, {record => $record->{id}, parent => $record->{parent}, mutable => bool($record->{mutable}), in_use => bool($used), size => $size};
    }
    return \@rows;
}

sub prune {
    require_open();
    my @removed;
    while (my ($record) = grep { !used($_) && !children($_->{id}) } values %records) {
        my @ids = grep { $_ ne '' } $record->{id}, $record->{equal};
        my ($size) = grep { defined } map { $records{$_}{size} } @ids;
        push @removed, {records => \@ids, size => $size};
        delete @records{@ids};
    }
    return {removed => \@removed, errors => 0};
}

my %REFS = (
    new => \&new_record,
    get => \&get,
    get_mutable => \&get_mutable,
    commit => \&commit_ref,
    finalize => sub { settle(of($_[0]{handle}, 0)); undef },
    release => sub { delete $open{$_[0]{handle}}; undef },
    parent => \&parent,
    mount => sub { mounted(@{$_[0]}{qw(handle readonly)}); undef },
    write => sub { my $at = mounted($_[0]{handle}, 0); changed($at->{tree}, $at->{mutable}, $_[0]{changes}) },
    read => sub { mounted($_[0]{handle}, 1)->{tree}->shown },
    disk_usage => \&rows,
    prune => \&prune,
    close => sub { $closed = 1; %open = (); undef },
    restart => sub { $closed = 0; %open = (); undef },
);

# --- the protocol

my (%calls, @later);

sub hello {
    my ($asked) = @_;
    %calls = $asked->{level} eq 'refs' ? %REFS : %SNAPSHOTS;
    (%snapshots, %records, %open, $closed) = ();
    return {
        protocol => 'snapspec adapter 1', name => 'snapshots and refs in memory', levels => ['snapshots', 'refs'],
        content => 'calls', reopens => $TRUE, profile => {usage => 'delta'},
    };
}

# What the work comes to: its value, or the error that it was refused with.
sub outcome {
    my ($work) = @_;
    my $value = eval { $work->() };
    my $error = $@;
    die $error if $error && !ref $error;
    return $error ? %$error : (value => $value);
}

sub answer { my ($id, $work) = @_; print $JSON->encode({id => $id, outcome($work)}), "\n" }

# A call that is made at once, also a size.
sub perform {
    my ($asked) = @_;
    my $call = $asked->{call};
    return {outcome(sub { $call eq 'size' ? size_ends($asked, size_begins($asked)) : $calls{$call}->($asked) })};
}

sub begin {
    my ($asked) = @_;
    my ($id, $call) = @$asked{qw(id call)};
    if ($call eq 'size' && exists $calls{new}) {
        my @measured = eval { size_begins($asked) };
        my $error = $@;
        push @later, [$id, $error ? sub { die $error } : sub { size_ends($asked, @measured) }];
        return;
    }
    answer($id, sub { ($call eq 'hello' ? \&hello : $calls{$call} // refuse('Unimplemented', "no call $call"))->($asked) });
}

sub cancel {
    my ($id) = @_;
    my ($found) = grep { $_->[0] == $id } @later or return;
    @later = grep { $_->[0] != $id } @later;
    answer($id, sub { refuse('Canceled', 'as asked') });
}

sub main {
    $| = 1;
    my ($ready, $rest) = (IO::Select->new(\*STDIN), '');
    while (1) {
        # Nothing to read for a while: what waits is answered.
        if (@later && !$ready->can_read(0.001)) { answer(@{shift @later}); next }
        sysread STDIN, $rest, 1 << 16, length $rest or last;
        while ($rest =~ s/^([^\n]*)\n//) {
            my $asked = $JSON->decode($1);
            exists $asked->{cancel} ? cancel($asked->{cancel}) : begin($asked);
        }
    }
    answer(@$_) for @later;
}

main() unless caller;

1;
