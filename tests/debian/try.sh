#!/bin/sh
# Installs a Debian package in a clean root, calls a function, and removes it again: try.sh PACKAGE (Debian, root).
# The root is made by mmdebstrap of SUITE at MIRROR, in a folder of its own that is removed.
set -eu
package=$(readlink -f "$1")
root=$(mktemp -d /var/tmp/sky-deb-XXXXXX)
trap 'umount -R "$root" 2>/dev/null || true; rm -rf --one-file-system "$root"' EXIT
say() { echo "== $*"; }
inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 "$@"; }
state() { (cd "$root" && find etc usr var/lib -path var/lib/dpkg -prune -o -path usr/lib/skyisland -prune -o -print | sort); }

say "a clean root, with what the package depends on"
mmdebstrap --quiet --mode=root --variant=minbase --include=python3,git,util-linux \
  "${SUITE:-bookworm}" "$root" "${MIRROR:-http://deb.debian.org/debian}"
mount --bind "$root" "$root" # a root that is no mount point has no jails
for fs in proc sys dev; do mount --rbind "/$fs" "$root/$fs" && mount --make-rslave "$root/$fs"; done
state >"$root/before"
cp "$package" "$root/skyisland.deb"

say "installed"
inside dpkg -i /skyisland.deb
inside skyisland --version
[ "$(stat -c %a "$root/etc/skyisland.toml")" = 600 ]
grep -q 'ExecStart=/usr/bin/skyisland ' "$root/usr/lib/systemd/system/skyisland.service"
[ -f "$root/usr/share/man/man1/skyisland.1.gz" ]
! grep -rlI "$(readlink -f "$(dirname "$package")")" "$root/usr/lib/skyisland/bin" "$root/usr/lib/skyisland/pyvenv.cfg"
inside skyisland config check

say "a call"
inside sh -ec '
  git init -q -b main /srv/hello && cd /srv/hello
  printf "package hello\n\nfunc Greet(name string) string { return \"hello \" + name }\n" >hello.go
  git add hello.go && git -c user.name=x -c user.email=x@localhost commit -qm x
  printf "http_port = 33499\n[git]\nrewrite = {\"https://my.example/\" = \"file:///srv/\"}\n" >/root/try.toml
  printf "[jails]\nuid_start = 1957000000\n[build]\ncompile_ahead = false\n" >>/root/try.toml
  skyisland -c /root/try.toml serve --no-tui >/root/log 2>&1 & island=$!
  for i in $(seq 600); do ! grep -q IslandStarted /root/log || break; sleep 0.5; kill -0 $island 2>/dev/null || { cat /root/log; exit 1; }; done
  skyisland -c /root/try.toml invoke my.example/hello "Greet(\"world\")" | grep "hello world"
  kill $island; wait $island'

say "removed: settings and state stay"
inside dpkg -r skyisland
[ ! -e "$root/usr/lib/skyisland" ] && [ ! -e "$root/usr/bin/skyisland" ]
[ -f "$root/etc/skyisland.toml" ] && [ -d "$root/var/lib/skyisland" ]

say "purged: nothing stays"
inside dpkg -P skyisland
state | diff "$root/before" -
say "all is well"
