package keyvalue

import "sort"

// item is what the index knows of a key.
type item struct {
	key     string
	rev     uint64 // of the value
	kvRev   uint64 // of its record
	expires int64  // Unix time in ms; 0: never
	slot    uint32
	size    uint32 // of the value in bytes
}

// weight is what a key counts against the bounds.
func (it *item) weight() int64 { return int64(len(it.key)) + int64(it.size) }

// index holds the keys of a bucket in order, in blocks so that a new one does not move
// all others. Its owner guards it.
type index struct {
	blocks [][]item // none empty
	keys   int
	timed  int // keys that expire
}

const blockSize = 256

// at finds where key is or would be.
func (x *index) at(key string) (block, place int, found bool) {
	block = max(sort.Search(len(x.blocks), func(i int) bool { return x.blocks[i][0].key > key })-1, 0)
	if len(x.blocks) == 0 {
		return 0, 0, false
	}
	b := x.blocks[block]
	place = sort.Search(len(b), func(i int) bool { return b[i].key >= key })
	return block, place, place < len(b) && b[place].key == key
}

func (x *index) count(it *item, by int) {
	x.keys += by
	if it.expires != 0 {
		x.timed += by
	}
}

func (x *index) set(it item) {
	block, place, found := x.at(it.key)
	x.count(&it, 1)
	if found {
		x.count(&x.blocks[block][place], -1)
		x.blocks[block][place] = it
		return
	}
	if len(x.blocks) == 0 {
		x.blocks = [][]item{{it}}
		return
	}
	b := append(x.blocks[block], item{})
	copy(b[place+1:], b[place:])
	b[place] = it
	x.blocks[block] = b
	if len(b) <= blockSize {
		return
	}
	half := len(b) / 2
	right := append(make([]item, 0, blockSize+1), b[half:]...)
	clear(b[half:])
	x.blocks[block] = b[:half]
	x.blocks = append(x.blocks, nil)
	copy(x.blocks[block+2:], x.blocks[block+1:])
	x.blocks[block+1] = right
}

func (x *index) remove(key string) {
	block, place, found := x.at(key)
	if !found {
		return
	}
	b := x.blocks[block]
	x.count(&b[place], -1)
	copy(b[place:], b[place+1:])
	b[len(b)-1] = item{}
	if b = b[:len(b)-1]; len(b) > 0 {
		x.blocks[block] = b
		return
	}
	x.blocks = append(x.blocks[:block], x.blocks[block+1:]...)
}

func (x *index) get(key string) (item, bool) {
	block, place, found := x.at(key)
	if !found {
		return item{}, false
	}
	return x.blocks[block][place], true
}

// from gives at most n items from the first that is not before key.
func (x *index) from(key string, n int) []item {
	var out []item
	block, place, _ := x.at(key)
	for ; block < len(x.blocks) && len(out) < n; block, place = block+1, 0 {
		if b := x.blocks[block]; place < len(b) {
			out = append(out, b[place:min(len(b), place+n-len(out))]...)
		}
	}
	return out
}
