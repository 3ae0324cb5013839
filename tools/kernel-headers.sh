#!/bin/sh
# Unpack kernel headers of Linux 6.12 or later, for tests/uapi, into a folder of their own:
#
#   tools/kernel-headers.sh [DIR [SUITE...]]
#
# DIR is .cache/kernel-headers unless given. They come from Debian's linux-libc-dev, from the first
# SUITE that has them. How, and from where, is said in tools/private-apt.sh.
set -eu

me=kernel-headers
case $0 in */*) . "${0%/*}/private-apt.sh" ;; *) . ./private-apt.sh ;; esac

package=linux-libc-dev
wanted=6.12

dir=${1:-.cache/kernel-headers}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- bookworm-backports trixie sid

[ ! -e "$dir/usr/include/linux/kvm.h" ] || exit 0
prepare "kernel headers"

seen=
for suite in "$@"; do
    version=unreachable
    ! know "$suite" || version=$(versions_of "$package" | sed 's/ .*//;q')
    if [ "$version" != unreachable ] && dpkg --compare-versions "${version:-0}" ge "$wanted"; then
        (cd "$state/deb" && private apt-get download -qq "$package=$version") >"$state/log" 2>&1 ||
            fail "download of $package $version failed: $(tail -n 1 "$state/log")"
        dpkg-deb -x "$state/deb/$package"_*.deb "$state/root"
        mv "$state/root" "$dir"
        echo "$me: $package $version ($suite) in $dir"
        exit 0
    fi
    seen="$seen${seen:+, }$suite: ${version:-none}"
done
fail "no $package $wanted or later on $mirror ($seen)"
