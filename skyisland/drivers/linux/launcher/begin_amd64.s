#include "textflag.h"

// The g of the compiled code, which loads it from FS into R14. Its stack begins at 0, so no stack check ever
// calls the runtime for a larger one. The kernel grows the stack.
DATA local<>+0(SB)/8, $goroutine<>(SB)
GLOBL local<>(SB), NOPTR, $16
GLOBL goroutine<>(SB), NOPTR, $1024

// func begin()
TEXT ·begin(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVQ	SP, BX
	MOVQ	$0x1002, DI	// ARCH_SET_FS
	MOVQ	$local<>+8(SB), SI
	MOVQ	$158, AX	// arch_prctl
	SYSCALL
	SUBQ	$16, SP
	ANDQ	$~15, SP
	MOVQ	BX, 0(SP)
	CALL	·serve(SB)
	INT	$3

// func spawn(path *byte, argv, env **byte) (pid uintptr, errno syscall.Errno)
TEXT ·spawn(SB),NOSPLIT,$0-40
	MOVQ	$0x4111, DI	// CLONE_VM|CLONE_VFORK|SIGCHLD
	XORL	SI, SI
	XORL	DX, DX
	XORL	R10, R10
	XORL	R8, R8
	MOVQ	$0, errno+32(FP)
	MOVQ	$56, AX	// clone
	SYSCALL
	TESTQ	AX, AX
	JZ	child
	JMI	failed
	MOVQ	AX, pid+24(FP)
	RET
failed:
	NEGQ	AX
	MOVQ	AX, errno+32(FP)
	RET
child:
	MOVQ	path+0(FP), DI
	MOVQ	argv+8(FP), SI
	MOVQ	env+16(FP), DX
	MOVQ	$59, AX	// execve
	SYSCALL
	NEGQ	AX
	MOVQ	AX, errno+32(FP)
	MOVQ	$1, DI
	MOVQ	$231, AX	// exit_group
	SYSCALL
	INT	$3
