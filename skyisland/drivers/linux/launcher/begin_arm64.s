#include "textflag.h"

// The g of the compiled code, in the register of that name. Its stack begins at 0, so no stack check ever
// calls the runtime for a larger one. The kernel grows the stack.
GLOBL goroutine<>(SB), NOPTR, $1024

// func begin()
TEXT ·begin(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVD	RSP, R0
	MOVD	$goroutine<>(SB), g
	SUB	$32, RSP
	MOVD	R0, 8(RSP)
	BL	·serve(SB)
	BRK

// func spawn(path *byte, argv, env **byte) (pid uintptr, errno syscall.Errno)
TEXT ·spawn(SB),NOSPLIT,$0-40
	MOVD	$0x4111, R0	// CLONE_VM|CLONE_VFORK|SIGCHLD
	MOVD	ZR, R1
	MOVD	ZR, R2
	MOVD	ZR, R3
	MOVD	ZR, R4
	MOVD	ZR, errno+32(FP)
	MOVD	$220, R8	// clone
	SVC
	CBZ	R0, child
	TBNZ	$63, R0, failed
	MOVD	R0, pid+24(FP)
	RET
failed:
	NEG	R0, R0
	MOVD	R0, errno+32(FP)
	RET
child:
	MOVD	path+0(FP), R0
	MOVD	argv+8(FP), R1
	MOVD	env+16(FP), R2
	MOVD	$221, R8	// execve
	SVC
	NEG	R0, R0
	MOVD	R0, errno+32(FP)
	MOVD	$1, R0
	MOVD	$94, R8	// exit_group
	SVC
	BRK
