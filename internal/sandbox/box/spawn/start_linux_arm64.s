#include "go_asm.h"
#include "textflag.h"

#define SYS_clone3 435
#define SYS_exit_group 94

// func start(args *cloneArgs, size uintptr, calls *Call, count uintptr, failed *record, all *Plan) uintptr
// The new process has the caller's stack, which it must not touch, and no other.
TEXT ·start(SB), NOSPLIT|NOFRAME, $0-56
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	calls+16(FP), R19
	MOVD	count+24(FP), R20
	MOVD	failed+32(FP), R21
	MOVD	$SYS_clone3, R8
	SVC
	CBZ	R0, child
	MOVD	R0, ret+48(FP)
	RET

child:
	MOVD	$0, R22

next:
	CMP	R20, R22
	BEQ	end
	MOVD	Call_number(R19), R8
	MOVD	(Call_args+0)(R19), R0
	MOVD	(Call_args+8)(R19), R1
	MOVD	(Call_args+16)(R19), R2
	MOVD	(Call_args+24)(R19), R3
	MOVD	(Call_args+32)(R19), R4
	MOVD	(Call_args+40)(R19), R5
	SVC
	ADD	$1, R22
	MOVD	Call_rule(R19), R9
	CMP	$const_whatever, R9
	BEQ	done
	CMN	$4095, R0
	BCS	bad
	CMP	$const_anything, R9
	BEQ	done
	MOVD	Call_want(R19), R10
	CMP	R10, R0
	BNE	bad

done:
	ADD	$Call__size, R19
	B	next

bad:
	MOVD	R0, record_result(R21)
	MOVD	R22, record_call(R21)

end:
	MOVD	$127, R0
	MOVD	$SYS_exit_group, R8
	SVC
	B	end
