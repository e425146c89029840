# A history is made, cloned, looked at and packed.
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null HOME="$PWD" GIT_PAGER=cat
git -c init.defaultBranch=main init -q origin
awk 'BEGIN {
    for (n = 1; n <= 150; n++) {
        printf "commit refs/heads/main\nmark :%d\ncommitter A <a@b> %d +0000\ndata <<END\nchange %d\nEND\n", n, 1700000000 + n, n
        if (n > 1) printf "from :%d\n", n - 1
        for (f = n % 7; f < 60; f += 7) {
            printf "M 100644 inline dir%d/file%d.txt\ndata <<END\n", f % 5, f
            for (l = 0; l < 120; l++) printf "line %d of file %d, last changed in %d\n", l, f, l % 11 == n % 11 ? n : n - n % 13
            printf "END\n"
        }
    }
}' | git -C origin fast-import --quiet
git clone -q --no-local origin copy
cd copy
git config pack.threads 1
git log --stat | tail -40
git log -p | cksum
git blame dir3/file3.txt | cksum
git diff HEAD~100 | cksum
git repack -q -a -d -f --window=20
git fsck --strict
git count-objects -v | grep -v size
