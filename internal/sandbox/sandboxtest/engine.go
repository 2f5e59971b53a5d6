package sandboxtest

// Engine is a module that stands in for one which runs scripts: prepare reads a source
// of at most 32 KiB and refuses an empty one, and handle answers with the source.
func Engine() []byte {
	const addrLength = 32
	read := Func{Name: "fd_read", Params: i32x4, Results: errno}
	m := command(nil, read)
	m.Funcs = []Func{
		{Name: "prepare", Results: []byte{I32}, Body: Seq(
			Put32(addrIovec, Const(addrBody)), Put32(addrIovec+4, Const(32<<10)),
			Call(1, Const(0), Const(addrIovec), Const(1), Const(addrCount)), Drop,
			Put32(addrLength, Load(addrCount)),
			Load(addrLength), []byte{0x45}, // 1 when it is zero
		)},
		{Name: "handle", Body: Seq(
			write(0, 1, addrHead, int32(len(okHead))),
			Put32(addrIovec, Const(addrBody)), Put32(addrIovec+4, Load(addrLength)),
			Call(0, Const(1), Const(addrIovec), Const(1), Const(addrCount)), Drop,
		)},
	}
	return m.Encode()
}
