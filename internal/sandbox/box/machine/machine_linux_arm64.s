#include "go_asm.h"
#include "textflag.h"

// The machine's code, which is copied into an executable of its own and never called
// here. It uses no stack, and R19 for the present call.
TEXT ·machine(SB), NOSPLIT|NOFRAME, $0
	MOVD	$const_bootAt, R20 // one instruction: what lies beside the code is not copied
	ADD	$const_bootCalls, R20, R19

next:
	MOVD	Call_number(R19), R8
	MOVD	(Call_args+0)(R19), R0
	CMP	$const_load, R8
	BEQ	load
	MOVD	(Call_args+8)(R19), R1
	MOVD	(Call_args+16)(R19), R2
	MOVD	(Call_args+24)(R19), R3
	MOVD	(Call_args+32)(R19), R4
	MOVD	(Call_args+40)(R19), R5
	SVC

result:
	MOVD	Call_out(R19), R9
	CBZ	R9, judge
	MOVD	R0, (R9)

judge:
	MOVD	Call_rule(R19), R9
	MOVD	Call_want(R19), R10
	CMP	$const_whatever, R9
	BEQ	behind
	CMP	$const_branch, R9
	BEQ	compare
	CMN	$4095, R0
	BCS	bad
	CMP	$const_anything, R9
	BEQ	behind
	CMP	R10, R0
	BNE	bad

behind:
	ADD	$Call__size, R19
	B	next

compare:
	CMP	R10, R0
	BNE	behind
	MOVD	Call_other(R19), R19
	B	next

load:
	MOVD	(R0), R0
	B	result

bad:
	MOVD	R19, const_bootFailed(R20)
	MOVD	R0, const_bootResult(R20)
	MOVD	const_bootHandler(R20), R19
	B	next

	// endMark
	WORD	$0x6d2d6463
	WORD	$0x69686361
	WORD	$0x652d656e
	WORD	$0x2e2e646e

// func address() *byte
TEXT ·address(SB), NOSPLIT, $0-8
	MOVD	$·machine(SB), R0
	MOVD	R0, ret+0(FP)
	RET
