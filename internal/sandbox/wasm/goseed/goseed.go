// Package goseed gives Go programs fresh randomness after their state was put back.
//
// A Go program asks for entropy once, when it starts, and everything that its
// runtime draws later (math/rand's top level functions, the order in which maps are
// walked, the seeds of new maps) comes from a generator seeded with it. Two
// instances restored from one image would draw the same. The generator of the only
// thread that a WebAssembly program has can be found in memory, because the entropy
// was ours: it was seeded with four of the first numbers of a generator, the global
// one, that was seeded with the entropy and then, with the four numbers after those,
// once more. Next to it lies a smaller generator (the order in which select looks at
// its cases), which began with the first number of the thread's.
//
// The source for layout and seeding is Go's runtime/rand.go and
// internal/chacha8rand, unchanged from Go 1.22 to 1.26. When they change, Find finds
// nothing and the caller has to start such programs anew each time.
//
// It imports the standard library only. Functions may be called from many
// goroutines.
package goseed

import (
	"encoding/binary"
	"math/rand/v2"
)

// SeedSize is how much entropy Go's runtime asks for when it starts, in bytes.
const SeedSize = 32

// FreshSize is how much entropy Refresh takes, in bytes: the generator's numbers, and
// what the smaller generator holds.
const FreshSize = offSeed + 8

// Layout of internal/chacha8rand.State, in bytes: 32 numbers, the seed of 4, and
// three counters of 32 bits.
const (
	numbers   = 32
	seedWords = 4
	offSeed   = numbers * 8
	offNext   = offSeed + seedWords*8 // index of the next number
	offHave   = offNext + 4           // how many numbers are valid
	offCount  = offHave + 4           // of blocks since the last seed, times 4
	stateSize = offCount + 4
	// lastCount is the counter after which the generator seeds itself anew, with the
	// last numbers of its block.
	lastCount = 12
	// offCheap is where runtime.m keeps cheaprand, after the padding of the state.
	offCheap = stateSize + 4
)

// searched is how many of the first numbers of the global generator are tried as
// the beginning of the thread's seed.
const searched = 16

// generations is how many times the thread's generator may have seeded itself anew.
const generations = 64

// cheapSteps is how many numbers a program may have drawn of the smaller generator
// before it is found.
const cheapSteps = 1 << 20

// State is where a program's generator lies in its memory.
type State struct {
	at    uint64
	cheap bool // the smaller generator is where it belongs
}

// Find looks for the generator of a program that was given entropy when it started.
// It reports false when there is none, or not just one besides the global.
func Find(memory []byte, entropy [SeedSize]byte) (State, bool) {
	type origin struct {
		seed  [seedWords]uint64
		index int // in the global generator's numbers
	}
	wanted := map[uint64]origin{}
	stream := rand.NewChaCha8(entropy)
	var first [searched + seedWords]uint64
	for i := range first {
		first[i] = stream.Uint64()
	}
	for i := range searched {
		seed := [seedWords]uint64(first[i : i+seedWords])
		for range generations {
			wanted[seed[0]] = origin{seed, i}
			seed = successor(seed)
		}
	}
	found := map[int]State{}
	count := 0
	for at := offSeed; at+stateSize-offSeed <= len(memory); at += 8 {
		word := binary.LittleEndian.Uint64(memory[at:])
		if word == 0 {
			continue
		}
		o, ok := wanted[word]
		if ok && plausible(memory[at-offSeed:][:stateSize], o.seed) {
			found[o.index] = State{at: uint64(at - offSeed)}
			count++
		}
	}
	for index, s := range found {
		if _, global := found[index+seedWords]; count == 1 || count == 2 && global {
			s.cheap = cheapAt(memory, s.at+offCheap, [seedWords]uint64(first[index:index+seedWords]))
			return s, true
		}
	}
	return State{}, false
}

// successor is the seed that a generator takes after one.
func successor(seed [seedWords]uint64) [seedWords]uint64 {
	g := rand.NewChaCha8(bytesOf(seed))
	// 4 blocks of 32 numbers, of which the last 4 become the seed. The next number
	// makes the generator take them.
	for range 4*numbers - seedWords + 1 {
		g.Uint64()
	}
	// "chacha8:", a position, and the seed as it is now.
	b, _ := g.MarshalBinary() // it cannot fail
	var next [seedWords]uint64
	for i := range next {
		next[i] = binary.LittleEndian.Uint64(b[len(b)-8*seedWords+8*i:])
	}
	return next
}

func bytesOf(seed [seedWords]uint64) (b [SeedSize]byte) {
	for i, w := range seed {
		binary.LittleEndian.PutUint64(b[8*i:], w)
	}
	return b
}

// plausible reports whether a state has this seed, and counters such as they occur.
func plausible(state []byte, seed [seedWords]uint64) bool {
	for i, w := range seed {
		if binary.LittleEndian.Uint64(state[offSeed+8*i:]) != w {
			return false
		}
	}
	next := binary.LittleEndian.Uint32(state[offNext:])
	have := binary.LittleEndian.Uint32(state[offHave:])
	count := binary.LittleEndian.Uint32(state[offCount:])
	return next <= have && (have == numbers || have == numbers-seedWords) && count <= lastCount && count%4 == 0
}

// cheapAt reports whether the smaller generator is there: whether its state follows
// from the first number of a generator with this seed.
func cheapAt(memory []byte, at uint64, seed [seedWords]uint64) bool {
	if at+8 > uint64(len(memory)) {
		return false
	}
	now := binary.LittleEndian.Uint64(memory[at:])
	state := rand.NewChaCha8(bytesOf(seed)).Uint64()
	for range cheapSteps {
		if state == now {
			return true
		}
		// xorshift64+, as in runtime.cheaprand.
		s1, s0 := uint32(state), uint32(state>>32)
		s1 ^= s1 << 17
		s1 ^= s0 ^ s1>>7 ^ s0>>16
		state = uint64(s0) | uint64(s1)<<32
	}
	return false
}

// Refresh makes the generator draw from new entropy. It takes the place of the
// numbers that were drawn ahead, of which the last four become the next seed: so most
// guests need not compute any.
func (s State) Refresh(memory []byte, entropy [FreshSize]byte) {
	state := memory[s.at:][:stateSize]
	copy(state[:offSeed], entropy[:])
	if s.cheap {
		copy(memory[s.at+offCheap:][:8], entropy[offSeed:])
	}
	binary.LittleEndian.PutUint32(state[offNext:], 0)
	binary.LittleEndian.PutUint32(state[offHave:], numbers-seedWords)
	binary.LittleEndian.PutUint32(state[offCount:], lastCount)
}
