#!/bin/bash
# Test the launcher of jails on arm64: in an emulated machine with Debian's own kernel, the launcher and
# a program that orders jails from it (guest/).  Needs Debian and root.  Fetches the kernel once, into
# ~/.cache/skyisland/arm64, and installs the emulator if it is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
VENV=$PWD/.venv/bin CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/skyisland/arm64
WORK=$(mktemp -d /tmp/sky-arm64-XXXXXX); trap 'rm -rf "$WORK"' EXIT

missing=(); for package in qemu-system-arm cpio; do
  dpkg -s "$package" > /dev/null 2>&1 || missing+=("$package"); done
[ ${#missing[@]} = 0 ] || { apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" > /dev/null; }

if [ ! -e "$CACHE/.ok" ]; then       # apt with the host's sources, but another architecture and a state of its own
  rm -rf "$CACHE"; mkdir -p "$CACHE"/{lists,archives}/partial; touch "$CACHE/status"
  foreign=(-qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root
    -o "Dir::State::Lists=$CACHE/lists" -o "Dir::Cache=$CACHE" -o "Dir::State::status=$CACHE/status")
  apt-get "${foreign[@]}" update
  image=$(apt-cache "${foreign[@]/-qq/-q}" depends linux-image-cloud-arm64 | sed -n 's/.*Depends: //p' | head -1)
  (cd "$WORK"; apt-get "${foreign[@]}" download "$image"; dpkg-deb -x linux-image-*.deb kernel)
  rm -rf "${CACHE:?}"/*
  cp "$WORK"/kernel/boot/vmlinuz-* "$CACHE/vmlinuz"
  cp "$WORK"/kernel/lib/modules/*/kernel/fs/overlayfs/overlay.ko "$CACHE/"
  touch "$CACHE/.ok"
fi

# Compile the launcher with the flags that an island uses.
mkdir "$WORK/root"
cp -r skyisland/drivers/linux/launcher "$WORK/launcher"; cp -r tests/arm64/guest "$WORK/guest"
mapfile -t flags < <("$VENV/python" -c 'from skyisland.drivers.linux.launching import FLAGS; print(*FLAGS, sep="\n")')
export GOARCH=arm64 GOOS=linux CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS= GOCACHE="$WORK/cache"
(cd "$WORK/launcher"; "$VENV/go" vet .; "$VENV/go" build "${flags[@]}" -o "$WORK/root/launcher" .)
(cd "$WORK/guest"; "$VENV/go" vet .; "$VENV/go" build -trimpath -buildvcs=false -o "$WORK/root/guest" .)
"$VENV/python" -c 'import sys
from skyisland.drivers.linux.seccomp import compile_filter
sys.stdout.buffer.write(compile_filter("aarch64"))' > "$WORK/root/filter"
cp "$CACHE/overlay.ko" "$WORK/root/"; ln "$WORK/root/guest" "$WORK/root/init"
(cd "$WORK/root"; find . | cpio -o -H newc --quiet | gzip -1) > "$WORK/initrd"

timeout 300 qemu-system-aarch64 -M virt -cpu max -m 512 -nodefaults -display none -no-reboot -serial stdio \
  -kernel "$CACHE/vmlinuz" -initrd "$WORK/initrd" -append "console=ttyAMA0 quiet panic=-1" < /dev/null |
  tr -d '\r' | tee "$WORK/said"
grep -qx passed "$WORK/said"
