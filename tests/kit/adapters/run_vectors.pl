#!/usr/bin/perl
# Runs vectors against the implementation in adapter.pl: perl run_vectors.pl FILE. Status 1, with a line each, for mismatches.
use strict;
use warnings;
use FindBin;
use JSON::PP;

require "$FindBin::Bin/adapter.pl";
my $JSON = JSON::PP->new->ascii->canonical->allow_nonref;

sub spelled { return $JSON->encode($_[0]) }

sub without { my ($entry, @names) = @_; my %left = %$entry; delete @left{@names}; return \%left }

sub in_any_order { return join ',', sort map { spelled($_) } @_ }

# The entries by path, the numbers of their inodes in that order, all numbers as numbers.
sub tree {
    my (%numbers, @told);
    for my $entry (sort { spelled($a->{path}) cmp spelled($b->{path}) } @{$_[0]}) {
        my $number = $numbers{$entry->{inode}} //= keys %numbers;
        my @blocks = map { [$_->[0] + 0, $_->[1]] } sort { $a->[0] <=> $b->[0] } @{$entry->{blocks}};
        my %plain = (%$entry, inode => $number + 0, blocks => \@blocks, rdev => [map { $_ + 0 } @{$entry->{rdev}}]);
        $plain{$_} += 0 for qw(mode uid gid size);
        push @told, spelled(\%plain);
    }
    return join ',', @told;
}

sub words_fit {
    my ($came, $wanted) = @_;
    return 0 if @$came != @$wanted;
    for my $at (0 .. $#$came) { return 0 unless grep { $_ eq $came->[$at] } @{$wanted->[$at]} }
    return 1;
}

sub within { my ($number, $limits) = @_; return $limits->[0] <= $number && $number <= $limits->[1] }

my %FITS = (
    value => sub { spelled($_[0]) eq spelled($_[1]) },
    list => sub { !defined $_[0] },
    record => sub { spelled(without($_[0], qw(created updated))) eq spelled($_[1]) },
    records => sub { in_any_order(map { without($_, qw(created updated)) } @{$_[0]}) eq in_any_order(@{$_[1]}) },
    usage => sub { within($_[0]{size}, $_[1]{size}) && within($_[0]{inodes}, $_[1]{inodes}) },
    size => sub { within(@_) },
    words => \&words_fit,
    tree => sub { tree($_[0]) eq tree($_[1]) },
    rows => sub { in_any_order(map { without($_, 'size') } @{$_[0]}) eq in_any_order(@{$_[1]}) },
    pruned => sub { in_any_order(map { [sort @{$_->{records}}] } @{$_[0]{removed}}) eq in_any_order(@{$_[1]}) && !$_[0]{errors} },
);

sub fits {
    my ($expected, $came) = @_;
    return scalar grep { $_ eq ($came->{error} // '') } @{$expected->{errors} // []} if $expected->{errors} || $came->{error};
    my ($form) = grep { $_ ne 'clauses' } keys %$expected;
    return $FITS{$form}->($came->{value}, $expected->{$form});
}

sub run {
    my ($document) = @_;
    my ($wrong, $number) = (0, -1);
    for my $history (@{$document->{histories}}) {
        $number++;
        hello({level => $document->{level}});
        for my $entry (@$history) {
            my ($call, $either) = @$entry{qw(call either)};
            my $came = perform($call);
            my @fitting = grep { fits($either->[$_], $came) } 0 .. $#$either;
            if (!@fitting) {
                $wrong++;
                print "history $number: ", spelled($call), ' gave ', spelled($came), ', not ', spelled($either), "\n";
            }
            my %on = map { $_ => 1 } @{$entry->{goes_on}};
            last unless grep { $on{$_} } @fitting;
        }
    }
    print scalar @{$document->{histories}}, " histories, $wrong wrong\n";
    return $wrong;
}

open my $file, '<', $ARGV[0] or die "$ARGV[0] cannot be read: $!\n";
exit(run($JSON->decode(do { local $/; <$file> })) ? 1 : 0);
