# Words: hashes, strings that grow, regular expressions, sorting.
export PERL_HASH_SEED=0 PERL_PERTURB_KEYS=0
exec perl <<'END'
use strict;
my ($state, %count, %by, @all) = (1);
sub rnd { $state = ($state * 1103515245 + 12345) % 2147483648; return $state >> 8 }
for my $n (1 .. 150000) {
    my $word = join '', map { chr(97 + rnd() % 26) } 1 .. 2 + rnd() % 7;
    $count{$word}++;
    push @{ $by{ length $word } }, $word;
    push @all, "$word-$n" if $n % 3 == 0;
}
my $text = join ' ', @all;
(my $other = $text) =~ s/([aeiou])([a-z])/$2\U$1/g;
my @parts = split /[ -]/, $other;
my %seen;
my @unique = grep { !$seen{ lc $_ }++ } @parts;
printf "%d %d %d %d\n", scalar keys %count, length $text, scalar @parts, scalar @unique;
print join(' ', (sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count)[0 .. 30]), "\n";
print "$_ ", scalar @{ $by{$_} }, " ", (sort @{ $by{$_} })[17], "\n" for sort { $a <=> $b } keys %by;
my $sum = 0;
$sum = ($sum * 31 + ord) % 1000003 for split //, substr $other, 0, 300000;
print "$sum\n";
END
