#!/bin/sh
# Unpack another QEMU than the system's, for tests/qemu, into a folder of its own:
#
#   tools/qemu-binary.sh [DIR [VERSION-PREFIX...]]
#
# Leaves DIR/qemu-system-x86_64, which runs as it stands. DIR is .cache/qemu-10.0 unless given. It
# comes from Debian: the newest version that begins with the first VERSION-PREFIX, 10.0 unless
# given, or else with the next. How, and from where, is said in tools/private-apt.sh.
#
# Its libraries lie beside it, the C library too, and it is told so by patchelf: a program started
# by way of a loader or with LD_LIBRARY_PATH would not be called QEMU, or would hand the libraries
# on to what it starts. It is bound to where it is: a DIR that has been moved is refused.
set -eu

me=qemu-binary
case $0 in */*) . "${0%/*}/private-apt.sh" ;; *) . ./private-apt.sh ;; esac

package=qemu-system-x86
program=qemu-system-x86_64

dir=${1:-.cache/qemu-10.0}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- 10.0

# Whether a version is one of those that a prefix means: 10.0 means 10.0.13, and not 10.01.
means() {
    case $2 in "$1" | "$1"[!0-9]*) return 0 ;; *) return 1 ;; esac
}

# Prints what the program in $dir says of its version; nothing if there is none that runs.
running() {
    said=$("$dir/$program" --version 2>/dev/null) || return 0
    said=${said#*version }
    echo "${said%%[ (]*}"
}

for prefix in "$@"; do
    ! means "$prefix" "$(running)" || exit 0
done
prepare "a QEMU $* that runs here"
[ "$(dpkg --print-architecture)" = amd64 ] || fail "Debian's $program for x86 runs on x86 only"

# Sets $version and $suite to the newest that is meant by $1; fails if there is none.
choose() {
    versions_of "$package" >"$state/versions"
    while read -r version suite; do
        ! means "$1" "${version#*:}" || return 0
    done <"$state/versions"
    return 1
}

unpack() {
    private apt-get install -qq -y --download-only --no-install-recommends -t "$suite" \
        "$package=$version" patchelf >"$state/log" 2>&1 ||
        fail "download of $package $version failed: $(tail -n 1 "$state/log")"
    mkdir "$state/tree"
    root=$state/tree/root
    for deb in "$state/cache/archives/"*.deb; do
        dpkg-deb -x "$deb" "$root"
    done
    rm -rf "$root/usr/share/doc" "$root/usr/share/locale" "$root/usr/share/man"
    ln -s "root/usr/bin/$program" "$state/tree/$program"
}

# The loader must be named with the whole path, which is the one after the move.
bind() {
    loader=usr/lib64/ld-linux-x86-64.so.2
    [ -e "$root/$loader" ] || loader=lib64/ld-linux-x86-64.so.2
    libraries=lib/x86_64-linux-gnu
    "$root/$loader" --library-path "$root/usr/$libraries:$root/$libraries" "$root/usr/bin/patchelf" \
        --set-interpreter "$dir/root/$loader" --force-rpath \
        --set-rpath "\$ORIGIN/../$libraries:\$ORIGIN/../../$libraries" \
        "$root/usr/bin/$program" >"$state/log" 2>&1 || fail "patchelf failed: $(tail -n 1 "$state/log")"
}

seen=
for prefix in "$@"; do
    for suites in "trixie trixie-backports" forky sid; do
        # shellcheck disable=SC2086 # words on purpose
        if ! know $suites; then
            seen="$seen${seen:+, }$suites: unreachable"
        elif choose "$prefix"; then
            unpack
            bind
            mv "$state/tree" "$dir"
            means "$prefix" "$(running)" || {
                rm -rf "$dir"
                fail "$program $version ($suite) does not run here"
            }
            echo "$me: $package $version ($suite) in $dir"
            exit 0
        else
            seen="$seen${seen:+, }$suites: $(cut -d' ' -f1 "$state/versions" | paste -sd' ' -)"
        fi
    done
done
fail "no $package $* on $mirror ($seen)"
