#include "go_asm.h"
#include "textflag.h"

// The machine's code, which is copied into an executable of its own and never called
// here. It uses no stack, and R12 for the present call.
TEXT ·machine(SB), NOSPLIT|NOFRAME, $0
	MOVQ	$const_bootAt, R12
	ADDQ	$const_bootCalls, R12

next:
	MOVQ	Call_number(R12), AX
	MOVQ	(Call_args+0)(R12), DI
	CMPQ	AX, $const_load
	JEQ	load
	MOVQ	(Call_args+8)(R12), SI
	MOVQ	(Call_args+16)(R12), DX
	MOVQ	(Call_args+24)(R12), R10
	MOVQ	(Call_args+32)(R12), R8
	MOVQ	(Call_args+40)(R12), R9
	SYSCALL

result:
	MOVQ	Call_out(R12), CX
	TESTQ	CX, CX
	JZ	judge
	MOVQ	AX, (CX)

judge:
	MOVQ	Call_rule(R12), CX
	CMPQ	CX, $const_whatever
	JEQ	behind
	CMPQ	CX, $const_branch
	JEQ	compare
	CMPQ	AX, $0xfffffffffffff001
	JCC	bad
	CMPQ	CX, $const_anything
	JEQ	behind
	CMPQ	AX, Call_want(R12)
	JNE	bad

behind:
	ADDQ	$Call__size, R12
	JMP	next

compare:
	CMPQ	AX, Call_want(R12)
	JNE	behind
	MOVQ	Call_other(R12), R12
	JMP	next

load:
	MOVQ	(DI), AX
	JMP	result

bad:
	MOVQ	$const_bootAt, CX
	MOVQ	R12, const_bootFailed(CX)
	MOVQ	AX, const_bootResult(CX)
	MOVQ	const_bootHandler(CX), R12
	JMP	next

	// endMark
	LONG	$0x6d2d6463
	LONG	$0x69686361
	LONG	$0x652d656e
	LONG	$0x2e2e646e

// func address() *byte
TEXT ·address(SB), NOSPLIT, $0-8
	LEAQ	·machine(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
