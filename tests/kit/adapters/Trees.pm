# File trees in memory, and the changes that callers make to them: what both levels of the adapter stand on.
#
# A tree is a hash of inodes by path. Paths, targets and names are bytes; all names of an inode hold the same hash.
package Trees;
use strict;
use warnings;
use Exporter 'import';
use MIME::Base64 qw(encode_base64 decode_base64);
use Scalar::Util qw(refaddr);

our @EXPORT_OK = qw(text_of bytes_of usage_of);

use constant {BLOCK => 4096, MAX_SIZE => 1 << 42};

sub bytes_of {
    my ($value) = @_;
    return decode_base64($value->{base64}) if ref $value;
    utf8::encode($value);
    return $value;
}

sub coded { return {is => 'bytes', base64 => encode_base64($_[0], '')} }

# Text for the line: characters, or the object of bytes where they are no UTF-8.
sub text_of { my ($bytes) = @_; my $text = $bytes; return utf8::decode($text) ? $text : coded($bytes) }

sub inode {
    my ($type, $mode, $gid) = @_;
    return {type => $type, mode => $mode & 07777, uid => 0, gid => $gid // 0, xattrs => {}, size => 0, blocks => {}, target => '', rdev => [0, 0]};
}

sub new { my ($class) = @_; return bless {'' => inode('directory', 0755)}, $class }

sub copy {
    my ($tree) = @_;
    my (%copies, %made);
    for my $path (keys %$tree) {
        my $inode = $tree->{$path};
        $made{$path} = $copies{refaddr $inode} //= {%$inode, xattrs => {%{$inode->{xattrs}}}, blocks => {%{$inode->{blocks}}}};
    }
    return bless \%made, ref $tree;
}

sub shown {
    my ($tree) = @_;
    return [map {
        my $inode = $tree->{$_};
        my ($xattrs, $blocks) = @$inode{qw(xattrs blocks)};
        +{
            %$inode, path => text_of($_), inode => refaddr($inode), target => text_of($inode->{target}),
            xattrs => {map { $_ => coded($xattrs->{$_}) } keys %$xattrs},
            blocks => [map { [$_ + 0, coded($blocks->{$_})] } keys %$blocks],
        }
    } keys %$tree];
}

# All of an inode in one string, so that two can be compared.
sub spelled {
    my ($inode) = @_;
    my @maps = map { my $map = $_; join "\0", map { ($_, $map->{$_}) } sort keys %$map } @$inode{qw(xattrs blocks)};
    return join "\0", @$inode{qw(type mode uid gid size target)}, @{$inode->{rdev}}, @maps;
}

# Bytes and inodes of what differs from the tree below.
sub usage_of {
    my ($tree, $lower) = @_;
    my %own;
    for my $path (keys %$tree) {
        my $inode = $tree->{$path};
        $own{refaddr $inode} = $inode unless $lower->{$path} && spelled($inode) eq spelled($lower->{$path});
    }
    my $size = 0;
    for my $inode (values %own) { $size += length for values %{$inode->{blocks}} }
    return ($size, scalar keys %own);
}

# --- what holds of paths

sub is_path {
    my ($path) = @_;
    return $path eq '' || ($path !~ /\0/ && !grep { $_ eq '' || $_ eq '.' || $_ eq '..' } split m{/}, $path, -1);
}

sub name_of { return $_[0] =~ m{([^/]*)\z} ? $1 : '' }

sub above { return $_[0] =~ m{\A(.*)/}s ? $1 : '' }

sub below {
    my ($tree, $path) = @_;
    return grep { $_ ne $path && ($path eq '' || index($_, "$path/") == 0) } keys %$tree;
}

# Why the directory above the path cannot be opened.
sub unreachable {
    my ($tree, $path) = @_;
    my @parts = split m{/}, $path, -1;
    for my $depth (0 .. $#parts - 1) {
        my $at = $tree->{join '/', @parts[0 .. $depth]};
        return length $parts[$depth] > 255 ? 'ENAMETOOLONG' : 'ENOENT' unless $at;
        return 'ENOTDIR' if $at->{type} ne 'directory';
    }
    return '';
}

sub absent {
    my ($tree, $path) = @_;
    return '' if $tree->{$path};
    return length name_of($path) > 255 ? 'ENAMETOOLONG' : 'ENOENT';
}

sub missing { my ($tree, $path) = @_; return unreachable($tree, $path) || absent($tree, $path) }

sub unmakable {
    my ($tree, $path) = @_;
    my $absent = absent($tree, $path);
    return unreachable($tree, $path) || ($absent eq 'ENOENT' ? '' : $absent || 'EEXIST');
}

# --- what holds of arguments

sub xattr_error {
    my ($name) = @_;
    return 'EINVAL' if $name =~ /\0/ || $name eq 'user.' || $name eq 'trusted.';
    return 'ERANGE' if $name eq '' || length $name > 255;
    return $name =~ /^(?:user|trusted)\.(?!overlay\.)/ || $name eq 'security.capability' ? '' : 'EOPNOTSUPP';
}

sub outside { my ($number, $end) = @_; return $number < 0 || $number >= $end }

sub wrong_argument {
    my ($what, $asked, @paths) = @_;
    return 'EINVAL' if grep { !is_path($_) } @paths;
    return 'EBUSY' if $what =~ /^(?:remove_directory|remove_tree|rename)$/ && grep { $_ eq '' } @paths;
    if ($what eq 'write_at' || $what eq 'truncate') {
        my $start = $what eq 'truncate' ? $asked->{size} : $asked->{offset};
        my $end = $start + ($what eq 'truncate' ? 0 : length bytes_of($asked->{data}));
        return $start < 0 ? 'EINVAL' : $end > MAX_SIZE ? 'EFBIG' : '';
    }
    if ($what eq 'make_symlink') {
        my $target = bytes_of($asked->{target});
        return $target =~ /\0/ ? 'EINVAL' : $target eq '' ? 'ENOENT' : length $target > 4095 ? 'ENAMETOOLONG' : '';
    }
    if ($what eq 'make_device') {
        my $wrong = $asked->{type} !~ /device$/ || outside($asked->{major}, 1 << 12) || outside($asked->{minor}, 1 << 20);
        return $wrong ? 'EINVAL' : '';
    }
    return outside($asked->{uid}, 0xFFFFFFFF) || outside($asked->{gid}, 0xFFFFFFFF) ? 'EINVAL' : '' if $what eq 'set_owner';
    return $what =~ /_xattr$/ ? xattr_error(bytes_of($asked->{name})) : '';
}

# --- changes

# Make one change: ok, or the name of the error.
sub change {
    my ($tree, $asked) = @_;
    my $what = $asked->{change};
    my @paths = map { bytes_of($asked->{$_}) } grep { exists $asked->{$_} } qw(source to path);
    my $error = wrong_argument($what, $asked, @paths);
    return $error if $error;
    my $method = $what =~ /^make/ ? 'make' : $what =~ /^(?:unlink|remove_directory|remove_tree)$/ ? 'remove' : $what eq 'rename' || $what eq 'link' ? $what : 'alter';
    return $tree->$method($asked, @paths) || 'ok';
}

sub make {
    my ($tree, $asked, $path) = @_;
    my $what = $asked->{change};
    my $type = $what eq 'make_device' ? $asked->{type} : $what =~ s/^make_//r;
    my $error = unmakable($tree, $path);
    $error ||= 'EPERM' if $type eq 'character device' && !$asked->{major} && !$asked->{minor};    # the sign of an overlay
    return $error if $error;
    my $over = $tree->{above($path)};
    my $made = $tree->{$path} = inode($type, $type eq 'symlink' ? 0777 : $asked->{mode}, $over->{mode} & 02000 ? $over->{gid} : 0);
    fill($made, 0, bytes_of($asked->{data})) if $type eq 'file';
    $made->{target} = bytes_of($asked->{target}) if $type eq 'symlink';
    $made->{rdev} = [@$asked{qw(major minor)}] if $type =~ /device$/;
    return '';
}

sub link {
    my ($tree, $asked, $to, $path) = @_;
    my $error = missing($tree, $to) || unmakable($tree, $path) || ($tree->{$to}{type} eq 'directory' ? 'EPERM' : '');
    $tree->{$path} = $tree->{$to} unless $error;
    return $error;
}

sub remove {
    my ($tree, $asked, $path) = @_;
    my $error = missing($tree, $path);
    return $error if $error;
    my $directory = $tree->{$path}{type} eq 'directory';
    return $directory ? 'EISDIR' : 'ENOTDIR' if !!$directory eq !!($asked->{change} eq 'unlink');
    my @below = $directory ? below($tree, $path) : ();
    return 'ENOTEMPTY' if $asked->{change} eq 'remove_directory' && @below;
    delete @$tree{$path, @below};
    return '';
}

sub rename {
    my ($tree, $asked, $source, $path) = @_;
    my $error = unreachable($tree, $source) || unreachable($tree, $path) || absent($tree, $source);
    return $error || 'ENAMETOOLONG' if $error || absent($tree, $path) eq 'ENAMETOOLONG';
    return 'EINVAL' if index($path, "$source/") == 0;
    return 'ENOTEMPTY' if index($source, "$path/") == 0;
    my ($from, $onto) = @$tree{$source, $path};
    if ($onto) {
        return '' if refaddr $onto == refaddr $from;
        my $directory = $from->{type} eq 'directory';
        return $directory ? 'ENOTDIR' : 'EISDIR' if $directory ne ($onto->{type} eq 'directory');
        return 'ENOTEMPTY' if $directory && below($tree, $path);
    }
    my @below = $from->{type} eq 'directory' ? below($tree, $source) : ();
    $tree->{$path . substr $_, length $source} = delete $tree->{$_} for $source, @below;
    return '';
}

sub alter {
    my ($tree, $asked, $path) = @_;
    my $error = missing($tree, $path);
    return $error if $error;
    my ($inode, $what) = ($tree->{$path}, $asked->{change});
    my $name = exists $asked->{name} ? bytes_of($asked->{name}) : '';
    my $type = $inode->{type};
    return {directory => 'EISDIR', symlink => 'ELOOP'}->{$type} // 'EINVAL' if $what =~ /^(?:write_at|truncate)$/ && $type ne 'file';
    return 'EOPNOTSUPP' if $what eq 'set_mode' && $type eq 'symlink';
    return 'EPERM' if $name =~ /^user\./ && $type ne 'file' && $type ne 'directory';
    return 'ENODATA' if $what eq 'remove_xattr' && !exists $inode->{xattrs}{$name};
    if ($what eq 'write_at') { fill($inode, $asked->{offset}, bytes_of($asked->{data})) }
    elsif ($what eq 'truncate') { cut($inode, $asked->{size}) }
    elsif ($what eq 'set_mode') { $inode->{mode} = $asked->{mode} & 07777 }
    elsif ($what eq 'set_owner') {
        @$inode{qw(uid gid)} = @$asked{qw(uid gid)};
        delete $inode->{xattrs}{'security.capability'} if $type ne 'directory';
    }
    elsif ($what eq 'set_xattr') { $inode->{xattrs}{$name} = bytes_of($asked->{value}) }
    else { delete $inode->{xattrs}{$name} }
    return '';
}

# --- what a file holds: blocks that are not all zero, each without its trailing zeros

sub put {
    my ($inode, $index, $block) = @_;
    $block =~ s/\0+\z//;
    if ($block eq '') { delete $inode->{blocks}{$index} } else { $inode->{blocks}{$index} = $block }
}

sub fill {
    my ($inode, $offset, $data) = @_;
    return if $data eq '';
    my $end = $offset + length $data;
    for my $index (int($offset / BLOCK) .. int(($end - 1) / BLOCK)) {
        my $start = $index * BLOCK;
        my $block = $inode->{blocks}{$index} // '';
        my $left = $offset > $start ? $offset - $start : 0;
        my $right = $end < $start + BLOCK ? $end - $start : BLOCK;
        $block .= "\0" x ($right - length $block) if length $block < $right;
        substr $block, $left, $right - $left, substr $data, $start + $left - $offset, $right - $left;
        put($inode, $index, $block);
    }
    $inode->{size} = $end if $end > $inode->{size};
    delete $inode->{xattrs}{'security.capability'};
}

sub cut {
    my ($inode, $size) = @_;
    for my $index (keys %{$inode->{blocks}}) {
        my $left = $size - $index * BLOCK;
        put($inode, $index, $left > 0 ? substr $inode->{blocks}{$index}, 0, $left : '');
    }
    $inode->{size} = $size;
    delete $inode->{xattrs}{'security.capability'};
}

1;
