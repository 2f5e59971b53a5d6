#include "go_asm.h"
#include "textflag.h"

#define SYS_clone3 435
#define SYS_exit_group 231

// func start(args *cloneArgs, size uintptr, calls *Call, count uintptr, failed *record, all *Plan) uintptr
// The new process has the caller's stack, which it must not touch, and no other.
TEXT ·start(SB), NOSPLIT|NOFRAME, $0-56
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	calls+16(FP), R12
	MOVQ	count+24(FP), R13
	MOVQ	failed+32(FP), R15
	MOVQ	$SYS_clone3, AX
	SYSCALL
	TESTQ	AX, AX
	JZ	child
	MOVQ	AX, ret+48(FP)
	RET

child:
	XORQ	BX, BX

next:
	CMPQ	BX, R13
	JEQ	end
	MOVQ	Call_number(R12), AX
	MOVQ	(Call_args+0)(R12), DI
	MOVQ	(Call_args+8)(R12), SI
	MOVQ	(Call_args+16)(R12), DX
	MOVQ	(Call_args+24)(R12), R10
	MOVQ	(Call_args+32)(R12), R8
	MOVQ	(Call_args+40)(R12), R9
	SYSCALL
	INCQ	BX
	MOVQ	Call_rule(R12), CX
	CMPQ	CX, $const_whatever
	JEQ	done
	CMPQ	AX, $0xfffffffffffff001
	JCC	bad
	CMPQ	CX, $const_anything
	JEQ	done
	CMPQ	AX, Call_want(R12)
	JNE	bad

done:
	ADDQ	$Call__size, R12
	JMP	next

bad:
	MOVQ	AX, record_result(R15)
	MOVQ	BX, record_call(R15)

end:
	MOVQ	$127, DI
	MOVQ	$SYS_exit_group, AX
	SYSCALL
	JMP	end
