#!/bin/bash
# vm.sh -- run a command with real OpenZFS on a host whose kernel has no zfs and cannot load modules.
# It runs in a virtual machine of one of two kinds:
#   uml   User-mode Linux 6.1 (Debian linux-source-6.1) + zfs.ko (Debian zfs-dkms)
#   qemu  Debian's own cloud kernel under QEMU/TCG      + zfs.ko (Debian zfs-dkms)
# usage:  vm.sh build-uml | build-qemu             (once; the result is kept, ~20 MB each)
#         ZFSVM_ZFS=bookworm-backports vm.sh ...   (OpenZFS 2.3 instead of 2.1; kept separately)
#         vm.sh uml|qemu [--] COMMAND [ARG...]     (exit status = COMMAND's)
# The guest's root is the host's / (read-only, by hostfs or virtiofs) under an overlay in memory:
# same paths, same interpreter, same venv.  All writes are lost, except those below $ZFSVM_OUT, a
# folder of the host that has the same path in the guest.
# COMMAND runs as root in the caller's folder.  TEST_ZPOOL=tank names a new pool.
set -euo pipefail
# Needs Debian 12 on x86-64, root, and /dev/shm without noexec.  It installs compilers (uml) or
# qemu-system-x86 and mmdebstrap (qemu) with apt-get, but nothing of ZFS.  Its settings are ZFSVM_*:
# ZFSVM_VERBOSE=1 prints versions, ZFSVM_KEEP=1 keeps the UML kernel's tree to build another zfs for it.
C=${ZFSVM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/skyisland/zfsvm}; MEM=${ZFSVM_MEM:-2048}; TMO=${ZFSVM_TIMEOUT:-600}
J=${ZFSVM_JOBS:-$(nproc)}; SUITE=bookworm; ZS=${ZFSVM_ZFS:-bookworm}   # bookworm: OpenZFS 2.1.11; bookworm-backports: 2.3.2
mkdir -p "$C/$ZS"; C=$(cd "$C/$ZS" && pwd)
say() { printf '%6ss zfsvm: %s\n' "$SECONDS" "$*" >&2; }

apt_() { apt-get -qq -o Dir::Etc::sourcelist="$C/apt/s.sources" -o Dir::Etc::sourceparts=/dev/null \
  -o Dir::State::Lists="$C/apt/lists" -o Dir::Cache="$C/apt/cache" -o APT::Sandbox::User=root "$@"; }
aptc_() { apt-cache -o Dir::Etc::sourcelist="$C/apt/s.sources" -o Dir::Etc::sourceparts=/dev/null \
  -o Dir::State::Lists="$C/apt/lists" -o Dir::Cache="$C/apt/cache" "$@"; }
apt_setup() {   # apt with contrib and a state of its own: the host's apt stays as it is
  rm -rf "$C/apt" "$C/debs"; mkdir -p "$C/apt/lists/partial" "$C/apt/cache/archives/partial" "$C/debs"
  # the host's own Debian sources, with contrib, and with the suite of another zfs version if it is not $SUITE
  local main; main=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Identifier: Packages' | sort -u | awk -v s="$SUITE" '$2 == s { print $1; exit }')
  { apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Identifier: Packages' | sort -u | awk -v s="$SUITE" 'index($2, s) == 1'
    [ "$ZS" = "$SUITE" ] || echo "$main $ZS"; } | sort -u | while read -r u l; do
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main contrib\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n' "$u" "$l"
  done > "$C/apt/s.sources"
  [ -s "$C/apt/s.sources" ] || { say "no Debian sources found: run apt-get update first"; return 1; }
  apt_ update
}
fetch() { (cd "$C/debs" && apt_ download "$@"); }
fetch_zfs() { (cd "$C/debs"; apt_ download zfs-dkms/$ZS zfsutils-linux/$ZS
  apt_ download $(dpkg-deb -f zfsutils-linux_*.deb Depends | tr ',' '\n' | sed -n 's/^ *\(lib[a-z0-9]*linux\) (= \(.*\))/\1=\2/p')); }
x() { dpkg-deb -x "$C"/debs/$1_*.deb "$2"; }
host_need() { local p miss=(); for p; do dpkg -s "$p" >/dev/null 2>&1 || miss+=("$p"); done
  [ ${#miss[@]} = 0 ] && return; say "installing ${miss[*]}"; apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${miss[@]}" >/dev/null; }
tools() {       # zfs(8) and zpool(8): not installed on the host, only in the guest's overlay
  rm -rf "$1"; mkdir -p "$1/usr" "$1.x"
  local d; for d in zfsutils-linux "$C"/debs/lib*linux_*.deb; do d=${d##*/}; x "${d%%_*}" "$1.x"; done
  cp -a "$1.x/usr/." "$1/usr/"; for d in sbin lib; do [ ! -d "$1.x/$d" ] || cp -a "$1.x/$d" "$1/usr/"; done     # Debian is merged-usr
  rm -rf "$1.x" "$1/usr/share" "$1/usr/lib/systemd" "$1/usr/lib/python3"; }
kos() { local k f; for k in spl zavl znvpair zunicode zcommon icp zlua zzstd zfs; do   # load order; 2.2 and later have spl and zfs alone
  f=$(find "$1"/module -name $k.ko); [ -z "$f" ] || { cp "$f" "$2/"; strip --strip-debug "$2/$k.ko"; echo $k.ko >> "$2/order"; }; done; }

lock() { exec 8> "${C%/*}/lock"; flock 8; }  # one build at a time; a second one waits and finds it done
build_uml() {
  local L=${C%/*}/linux-uml
  lock; [ ! -e "$C/uml/.ok" ] || { [ -n "${ZFSVM_KEEP:-}" ] || rm -rf "$L"; return; }
  host_need flex bison bc make gcc libc6-dev xz-utils
  apt_setup; fetch linux-source-6.1 busybox-static; fetch_zfs; say downloaded
  local W=$C/build-uml Z; rm -rf "$W" "$C/uml"; mkdir -p "$W/ls" "$W/zd" "$W/bb" "$C/uml/mods"
  if [ ! -e "$L/.built" ]; then   # ZFSVM_KEEP=1 kept it from a build of another zfs version
  rm -rf "$L"; mkdir -p "$L"; x linux-source-6.1 "$W/ls"
  tar -C "$L" -xJf "$W"/ls/usr/src/linux-source-6.1.tar.xz --strip-components=1
  rm -rf "$W/ls"; say "kernel source unpacked"
  # A processor with AMX has an XSAVE area of 11008 bytes, but UML 6.1 reserves 2696.  Then its
  # PTRACE_SETREGSET fails ("put_fp_registers ... fatal_sigsegv").  So reserve more.
  sed -i 's/DEFINE_LONGS(HOST_FP_SIZE, 2696)/DEFINE_LONGS(HOST_FP_SIZE, 12288)/' "$L/arch/x86/um/user-offsets.c"
  grep -q 'HOST_FP_SIZE, 12288' "$L/arch/x86/um/user-offsets.c"
  local c; for c in 64BIT MODULES MODULE_UNLOAD PRINTK BUG KALLSYMS BLOCK BLK_DEV BLK_DEV_UBD BLK_DEV_LOOP \
    BINFMT_ELF BINFMT_SCRIPT FUTEX EPOLL SIGNALFD TIMERFD EVENTFD SHMEM AIO IO_URING ADVISE_SYSCALLS MEMBARRIER RSEQ FHANDLE \
    MULTIUSER SYSCTL PROC_FS PROC_SYSCTL SYSFS POSIX_TIMERS HIGH_RES_TIMERS NO_HZ_IDLE SYSVIPC POSIX_MQUEUE CROSS_MEMORY_ATTACH \
    NET UNIX INET NAMESPACES UTS_NS IPC_NS USER_NS PID_NS NET_NS CGROUPS TTY UNIX98_PTYS SSL NULL_CHAN PTY_CHAN XTERM_CHAN UML_RANDOM HW_RANDOM STDERR_CONSOLE \
    DEVTMPFS TMPFS TMPFS_XATTR TMPFS_POSIX_ACL HOSTFS OVERLAY_FS EXT4_FS EXT4_FS_POSIX_ACL FUSE_FS INOTIFY_USER FANOTIFY FILE_LOCKING DNOTIFY \
    MAGIC_SYSRQ PARTITION_ADVANCED EFI_PARTITION MSDOS_PARTITION CRYPTO CRYPTO_DEFLATE MISC_FILESYSTEMS EXPERT COREDUMP ELF_CORE SLUB VM_EVENT_COUNTERS PRINTK_TIME \
    ; do echo "CONFIG_$c=y"; done > "$W/frag"; echo CONFIG_KERNEL_STACK_ORDER=4 >> "$W/frag"   # the XSAVE area is on the signal stack, and zfs needs much stack
  ( cd "$L"; export ARCH=um
    make -s KCONFIG_ALLCONFIG="$W/frag" allnoconfig > "$W/linux.log" 2>&1 &&
    make -j"$J" vmlinux modules >> "$W/linux.log" 2>&1 ) || { tail -20 "$W/linux.log" >&2; return 1; }
  touch "$L/.built"; say "UML kernel built"; fi
  x zfs-dkms "$W/zd"; Z=$(echo "$W"/zd/usr/src/zfs-*)
  ( cd "$Z"; export ARCH=um
    case $Z in */zfs-2.1.*) export KAFLAGS="-Dlongjmp=kernel_longjmp -Dsetjmp=kernel_setjmp";; esac   # UML renames these two in C, so 2.1's .S must too
    sh ./configure --disable-dependency-tracking --with-config=kernel --with-linux="$L" --with-linux-obj="$L" > "$W/zconf.log" 2>&1 || exit 1
    [ ! -f module/icp/Makefile ] ||     # 2.1: UML has no CONFIG_X86*; 2.2 and later test CONFIG_UML_X86 themselves
    sed -i 's/CONFIG_X86_64)/CONFIG_64BIT)/; s/CONFIG_X86)/CONFIG_UML_X86)/' module/{icp,zcommon,zfs}/Makefile
    say "zfs configured"
    make -j"$J" > "$W/zmake.log" 2>&1 ) || { tail -20 "$W"/zconf.log "$W"/zmake.log >&2; return 1; }
  kos "$Z" "$C/uml/mods"; cp "$L/vmlinux" "$C/uml/linux"; strip "$C/uml/linux"
  x busybox-static "$W/bb"; cp "$W/bb/bin/busybox" "$C/uml/"       # insmod and poweroff: the host may not have them
  tools "$C/uml/tools"; say "zfs built"
  ls "$C/debs" > "$C/uml/packages"; rm -rf "$W" "$C/debs" "$C/apt"; [ -n "${ZFSVM_KEEP:-}" ] || rm -rf "$L"; touch "$C/uml/.ok"
}

build_qemu() {
  lock; [ -e "$C/qemu/.ok" ] && return
  host_need qemu-system-x86 mmdebstrap cpio
  apt_setup; local I H K D W=$C/build-qemu; rm -rf "$W" "$C/qemu"; mkdir -p "$W/k" "$C/qemu"
  I=$(aptc_ depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p;' | head -1); K=${I#linux-image-}
  fetch "$I" busybox-static; fetch_zfs; say downloaded
  mmdebstrap -q --variant=minbase --mode=root --skip=check/empty --include=linux-headers-$K,gcc,libc6-dev,make,kmod,file,perl "$SUITE" "$W/root" "$C/apt/s.sources" > "$W/mm.log" 2>&1
  say "build chroot made"
  x zfs-dkms "$W/root"; x "$I" "$W/k"; x busybox-static "$W/k"
  cat > "$W/root/tmp/b.sh" <<E
set -e; cd /usr/src/zfs-*
sh ./configure --disable-dependency-tracking --with-config=kernel --with-linux=/usr/src/linux-headers-${K%-cloud-amd64}-common --with-linux-obj=/lib/modules/$K/build > /tmp/conf.log 2>&1
date +%s > /tmp/configured
make -j$J KCFLAGS=-g0 > /tmp/make.log 2>&1
E
  unshare -m --propagation private sh -c 'mount -t proc proc "$0/proc" && exec chroot "$0" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C sh /tmp/b.sh' "$W/root" || { tail -20 "$W"/root/tmp/*.log >&2; return 1; }
  say "zfs built"
  D=$W/root/mnt/lib/modules; mkdir -p "$D"; cp -a "$W/k/lib/modules/$K" "$D/"; mkdir -p "$D/$K/extra"
  local m; kos "$(echo "$W"/root/usr/src/zfs-*)" "$D/$K/extra"
  chroot "$W/root" depmod -b /mnt "$K"
  local R=$W/ird; mkdir -p "$R"/{bin,m,tools,proc,sys,dev}; cp "$W"/k/bin/busybox "$R/bin/"
  # the last line has the modules that jails need: the guest loads none by itself
  for m in virtio_pci overlay virtiofs virtio_blk virtio-rng zfs \
    veth dummy bridge nf_tables nft_ct nft_masq nft_chain_nat; do chroot "$W/root" modprobe -d /mnt -S "$K" --show-depends $m; done \
    | sed -n 's,^insmod /mnt/,,p' | awk '!s[$1]++{print $1}' > "$W/modlist"
  while read -r m; do cp "$W/root/mnt/$m" "$R/m/"; basename "$m"; done < "$W/modlist" > "$R/modlist"
  tools "$R/tools"
  cat > "$R/init" <<'E'
#!/bin/busybox sh
b=/bin/busybox; for a in mount mkdir insmod cat cp switch_root dmesg; do $b ln -s busybox /bin/$a; done; export PATH=/bin
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
while read m; do insmod /m/$m || echo "insmod $m: failed"; done < /modlist
for a in $(cat /proc/cmdline); do case $a in zrun=*) RUN=${a#zrun=};; zout=*) OUT=${a#zout=};; esac; done
mkdir -p /host /rw /new; mount -t virtiofs hostroot /host || exec $b sh
mount -t tmpfs -o size=80% tmpfs /rw; mkdir /rw/u /rw/w; cp -a /tools/. /rw/u/; cp /bin/busybox /rw/u/busybox-zfsvm
mount -t overlay -o lowerdir=/host,upperdir=/rw/u,workdir=/rw/w overlay /new || exec $b sh
for d in proc sys dev; do mkdir -p /new/$d; mount --move /$d /new/$d; done
mount --bind /host$RUN /new$RUN; [ $OUT = $RUN ] || mount --bind /host$OUT /new$OUT
exec switch_root /new /bin/sh $RUN/guest </new/dev/console >/new/dev/console 2>&1
E
  chmod +x "$R/init"; (cd "$R"; find . | cpio -o -H newc --quiet | gzip -1) > "$C/qemu/initrd.img"
  cp "$W/k/boot/vmlinuz-$K" "$C/qemu/vmlinuz"; say "initramfs made"
  ls "$C/debs" > "$C/qemu/packages"; rm -rf "$W" "$C/debs" "$C/apt"; touch "$C/qemu/.ok"
}

prepare_run() {   # RUN/guest: the script of pid 1 after the root is mounted; RUN/cmd: the caller's command
  RUN=$(mktemp -d "$C/run.XXXXXX"); trap 'rm -rf "$RUN"' EXIT
  export ZFSVM_OUT=${ZFSVM_OUT:-$RUN}
  { echo "cd $(printf %q "$PWD") || exit 97"; export -p | grep -vE '^declare -x (PWD|OLDPWD|SHLVL|_|TERM)='; 
    echo 'export TEST_ZPOOL=tank PATH=$PATH:/usr/sbin:/sbin'; printf '%q ' "$@"; echo; } > "$RUN/cmd"
  cat > "$RUN/guest" <<E
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -n -t tmpfs -o size=80% tmpfs /run; mkdir -p /dev/pts /dev/shm    # not /tmp: the project may be there
mount -n -t devpts devpts /dev/pts; mount -n -t tmpfs tmpfs /dev/shm
mount -n -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null || :     # under UML it has no controller
mount -n --make-rshared /                       # as systemd does
stty -F /dev/console -opost 2>/dev/null; B=/busybox-zfsvm; \$B hostname zfsvm; \$B ip link set lo up
truncate -s ${ZFSVM_POOL:-4G} /run/tank.img
zpool create -O compression=lz4 -O atime=off -m /tank tank /run/tank.img || echo "zfsvm: no pool"
[ -z "${ZFSVM_VERBOSE:-}" ] || { read u _ < /proc/uptime; echo "zfsvm: pool ready at \$u s, kernel \$(uname -r), \$(zfs version | tr '\n' ' ')"; }
{ bash $RUN/cmd < /dev/null 2>&1; echo \$? > $RUN/rc; } | cat     # a pipe instead of the console: no colours
\$B poweroff -f
E
}
guarded() {       # run "$@"; kill it after $TMO s, or when we are interrupted; then exit with COMMAND's status
  exec 3> >(exec sed -u '/\] reboot: /d'); local f=$! p s r
  "$@" < /dev/null >&3 2> "$RUN/err" & p=$!
  sleep "$TMO" & s=$!
  trap "kill -KILL $p $s 2>/dev/null; wait $p $s 2>/dev/null || :; exit 130" INT TERM HUP
  wait -n $p $s 2>/dev/null || :
  if kill -0 $s 2>/dev/null; then kill $s; else kill -KILL $p; r=124; fi
  wait $p $s 2>/dev/null || :; exec 3>&-; wait $f || :
  [ -z "${r:-}" ] || { echo "zfsvm: killed after $TMO s" >&2; exit $r; }
  r=$(cat "$RUN/rc" 2>/dev/null) || { echo "zfsvm: the guest died before the command ended:" >&2; tail -5 "$RUN/err" >&2; exit 98; }
  exit "$r"; }

run_uml() {
  [ -e "$C/uml/.ok" ] || { build_uml; exec 8>&-; }
  prepare_run "$@"
  cat > "$RUN/init" <<E
#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -n -t proc proc /proc; mount -n -t tmpfs -o size=80% tmpfs /mnt; mkdir -p /mnt/u /mnt/w /mnt/n /mnt/t
mount -n -t hostfs -o $C/uml none /mnt/t; cp -a /mnt/t/tools/. /mnt/u/
while read m; do /mnt/t/busybox insmod /mnt/t/mods/\$m || echo "insmod \$m failed"; done < /mnt/t/mods/order; cp /mnt/t/busybox /mnt/u/busybox-zfsvm
mount -n -t overlay -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w overlay /mnt/n
cd /mnt/n; mount -n -t proc proc proc; mount -n -t sysfs sys sys; mount -n -t devtmpfs dev dev
mount -n -t hostfs -o $RUN none .$RUN
[ $ZFSVM_OUT = $RUN ] || mount -n -t hostfs -o $ZFSVM_OUT none .$ZFSVM_OUT
exec chroot . /bin/sh $RUN/guest
E
  chmod +x "$RUN/init"; truncate -s 8G "$RUN/ubd"
  # In a pid namespace of its own, so that no traced child outlives it.  sh is its pid 1, not linux,
  # because abort(), by which UML ends after a panic, does not kill a pid 1.
  guarded env TMPDIR=/dev/shm unshare --pid --fork --kill-child sh -c '"$@"; exit $?' sh "$C/uml/linux" mem=${MEM}M ubd0="$RUN/ubd" \
     rootfstype=hostfs rootflags=/ ro init="$RUN/init" quiet con=null con0=null,fd:1 umid=zfsvm-$$ uml_dir="$RUN"
}
run_qemu() {
  [ -e "$C/qemu/.ok" ] || { build_qemu; exec 8>&-; }
  host_need qemu-system-x86       # the cache may come from another machine
  prepare_run "$@"
  /usr/lib/qemu/virtiofsd -f --socket-path="$RUN/vfs" -o source=/ -o sandbox=chroot -o cache=always -o log_level=err 2> "$RUN/vfs.log" &
  local i; V=$!; for i in $(seq 200); do [ -S "$RUN/vfs" ] && break; sleep 0.02; done
  trap 'kill $V 2>/dev/null || :; rm -rf "$RUN"' EXIT
  guarded qemu-system-x86_64 -accel tcg,thread=multi,tb-size=512 -cpu max -smp "${ZFSVM_CPUS:-2}" -m "$MEM" \
    -nodefaults -no-user-config -display none -no-reboot -object memory-backend-memfd,id=mem,size="${MEM}M",share=on -machine pc,memory-backend=mem \
    -chardev socket,id=c,path="$RUN/vfs" -device vhost-user-fs-pci,chardev=c,tag=hostroot,queue-size=1024 -device virtio-rng-pci \
    -kernel "$C/qemu/vmlinuz" -initrd "$C/qemu/initrd.img" -append "console=ttyS0 quiet panic=-1 mitigations=off zrun=$RUN zout=$ZFSVM_OUT" \
    -serial stdio
}
cmd=${1:-}; shift || :; [ "${1:-}" != -- ] || shift
case $cmd in build-uml) build_uml;; build-qemu) build_qemu;; uml) run_uml "$@";; qemu) run_qemu "$@";;
 *) sed -n '2,12p' "$0"; exit 2;; esac
