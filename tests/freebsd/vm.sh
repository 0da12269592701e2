#!/bin/bash
# Test on a real FreeBSD: boot the image that FREEBSD_IMAGE names in QEMU, put this checkout in, run guest/run.sh
# there as root, and bring what it leaves (JUnit, logs) to .cache/freebsd. Exit status: that of the tests.
#
#   FREEBSD_IMAGE=FILE                a disk that boots: raw, qcow2, or one of them as .xz. It is not changed
#   FREEBSD_IMAGE=URL                 the same, downloaded once; FREEBSD_SHA256 must say its sum
#   FREEBSD_WHEELS=FOLDER             wheels for the guest's Python, where it has no network
#   FREEBSD_STEPS="doctor contract"   these steps of guest/run.sh alone, after install and pool
#   FREEBSD_TIMEOUT=7200              seconds; FREEBSD_MEM=4096  MiB; FREEBSD_CPUS=2; FREEBSD_FIRMWARE=FILE (UEFI)
#
# The image must run the user data of a cloud-init disk at its first boot, as FreeBSD's own BASIC-CLOUDINIT images
# do (nuageinit(7)). KVM where it works, emulation elsewhere. Needs qemu-system-x86, and xorriso or genisoimage.
set -euo pipefail
cd "$(dirname "$0")/../.."
OUT=${FREEBSD_OUT:-$PWD/.cache/freebsd} KEPT=${XDG_CACHE_HOME:-$HOME/.cache}/skyisland/freebsd
say() { printf 'test-freebsd: %s\n' "$*" >&2; }
fail() { say "$@"; exit 2; }

if [ -z "${FREEBSD_IMAGE:-}" ]; then
  fail "FREEBSD_IMAGE names no image. Name a disk with FreeBSD 14.3 or later that runs cloud-init's user data, by
  file, or by URL with FREEBSD_SHA256: of the VM images at https://download.freebsd.org, for instance
  FreeBSD-15.0-RELEASE-amd64-BASIC-CLOUDINIT-zfs.qcow2.xz, whose sum is in CHECKSUM.SHA256 beside it"
fi
ISO=$(command -v xorrisofs || command -v genisoimage || command -v mkisofs) ||
  fail "there is no xorrisofs or genisoimage; install xorriso"
command -v qemu-system-x86_64 > /dev/null || fail "there is no qemu-system-x86_64; install qemu-system-x86"

case $FREEBSD_IMAGE in
http://* | https://*)
  [[ ${FREEBSD_SHA256:-} =~ ^[0-9a-f]{64}$ ]] || fail "FREEBSD_SHA256 must say the SHA-256 sum of $FREEBSD_IMAGE"
  image=$KEPT/$FREEBSD_SHA256-${FREEBSD_IMAGE##*/}
  if [ ! -e "$image" ]; then
    mkdir -p "$KEPT"
    say "downloading $FREEBSD_IMAGE"
    curl -fL --no-progress-meter -C - -o "$image.part" "$FREEBSD_IMAGE" || fail "cannot download $FREEBSD_IMAGE"
    echo "$FREEBSD_SHA256  $image.part" | sha256sum -c --quiet ||
      { rm -f "$image.part"; fail "$FREEBSD_IMAGE is not what FREEBSD_SHA256 says; it was deleted"; }
    mv "$image.part" "$image"
  fi ;;
*) image=$FREEBSD_IMAGE; [ -r "$image" ] || fail "FREEBSD_IMAGE: $image cannot be read" ;;
esac
WORK=$(mktemp -d "${TMPDIR:-/var/tmp}/sky-freebsd-XXXXXX"); trap 'rm -rf "$WORK"' EXIT
if [[ $image = *.xz ]]; then xz -dkc "$image" > "$WORK/image"; image=$WORK/image; fi
[ "$(head -c 3 "$image")" = QFI ] && format=qcow2 || format=raw

# A disk as cloud-init and nuageinit(7) know it, with the checkout beside.
mkdir "$WORK/cidata"
printf 'instance-id: skyisland\nlocal-hostname: skyisland\n' > "$WORK/cidata/meta-data"
cp tests/freebsd/guest/user-data "$WORK/cidata/user-data"
cp tests/freebsd/guest/run.sh "$WORK/cidata/run.sh"
echo " install pool ${FREEBSD_STEPS:-all} " > "$WORK/cidata/steps"
git ls-files -z | tar -cf "$WORK/cidata/checkout.tar" --null -T -
if [ -n "${FREEBSD_WHEELS:-}" ]; then tar -cf "$WORK/cidata/wheels.tar" -C "$FREEBSD_WHEELS" .; fi
"$ISO" -quiet -V cidata -R -J -o "$WORK/cidata.iso" "$WORK/cidata"
# What comes back: the guest finds this disk by its first words, and writes a tar archive onto it.
truncate -s 64M "$WORK/out"; printf 'skyisland-out' | dd of="$WORK/out" conv=notrunc status=none

try_kvm() { timeout 10 qemu-system-x86_64 -accel kvm -cpu host -m 64 -display none -S -monitor stdio <<< quit > /dev/null 2>&1; }
if [ -w /dev/kvm ] && (try_kvm) 2> /dev/null; then machine=(-accel kvm -cpu host)
else machine=(-accel "tcg,thread=multi" -cpu "max,la57=off"); say "KVM does not work here: this will be slow"; fi
[ -z "${FREEBSD_FIRMWARE:-}" ] || machine+=(-bios "$FREEBSD_FIRMWARE")

rm -rf "$OUT"; mkdir -p "$OUT"
say "booting ${image##*/}; the console is in $OUT/console"
code=0
timeout "${FREEBSD_TIMEOUT:-7200}" qemu-system-x86_64 "${machine[@]}" -m "${FREEBSD_MEM:-4096}" \
  -smp "${FREEBSD_CPUS:-2}" -display none -monitor none -serial stdio -netdev user,id=net \
  -device virtio-net-pci,netdev=net -drive "file=$image,format=$format,if=virtio,snapshot=on" \
  -drive "file=$WORK/cidata.iso,format=raw,if=virtio,readonly=on" -drive "file=$WORK/out,format=raw,if=virtio" \
  < /dev/null > "$OUT/console" 2>&1 || code=$?
[ "$code" != 124 ] || fail "not done after ${FREEBSD_TIMEOUT:-7200} s; the end of the console:" "$(tail -5 "$OUT/console")"
tar -xf "$WORK/out" -C "$OUT" 2> /dev/null && [ -s "$OUT/status" ] ||
  fail "the guest left no result; the end of the console:" "$(tail -5 "$OUT/console")"
cat "$OUT/log" 2> /dev/null || :
exit "$(cat "$OUT/status")"
