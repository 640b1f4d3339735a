#include "textflag.h"

// func Linux(call, a, b, c, d, e uintptr) int
TEXT ·Linux(SB), NOSPLIT, $0-56
	MOVQ call+0(FP), AX
	MOVQ a+8(FP), DI
	MOVQ b+16(FP), SI
	MOVQ c+24(FP), DX
	MOVQ d+32(FP), R10
	MOVQ e+40(FP), R8
	SYSCALL
	MOVQ AX, ret+48(FP)
	RET
