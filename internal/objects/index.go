package objects

import "sort"

// item is what the index knows of a key.
type item struct {
	key    string
	rev    uint64 // of its record, 0 when that is in doubt
	hidden bool   // it has versions, and the current one is a delete marker
	gone   bool   // it has no version; what is left tells of removals
}

// index holds the keys of a bucket in order, in blocks so that a new one does not move
// all others. Its owner guards it.
type index struct {
	blocks [][]item // none empty
	there  int      // keys with versions
	shown  int      // keys whose current version is an object
}

const blockSize = 512

// at finds where key is or would be.
func (x *index) at(key string) (block, place int, found bool) {
	block = sort.Search(len(x.blocks), func(i int) bool { return x.blocks[i][0].key > key }) - 1
	if block < 0 {
		return 0, 0, false
	}
	b := x.blocks[block]
	place = sort.Search(len(b), func(i int) bool { return b[i].key >= key })
	return block, place, place < len(b) && b[place].key == key
}

func (x *index) count(it item, by int) {
	if !it.gone {
		x.there += by
		if !it.hidden {
			x.shown += by
		}
	}
}

func (x *index) set(it item) {
	block, place, found := x.at(it.key)
	x.count(it, 1)
	if found {
		x.count(x.blocks[block][place], -1)
		it.key = x.blocks[block][place].key
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
	if len(b) > blockSize {
		half := len(b) / 2
		right := append(make([]item, 0, blockSize+1), b[half:]...)
		clear(b[half:])
		x.blocks[block] = b[:half]
		x.blocks = append(x.blocks, nil)
		copy(x.blocks[block+2:], x.blocks[block+1:])
		x.blocks[block+1] = right
	}
}

func (x *index) remove(key string) {
	block, place, found := x.at(key)
	if !found {
		return
	}
	b := x.blocks[block]
	x.count(b[place], -1)
	b = append(b[:place], b[place+1:]...)
	x.blocks[block] = b
	if len(b) == 0 {
		x.blocks = append(x.blocks[:block], x.blocks[block+1:]...)
	}
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
	if len(x.blocks) == 0 {
		return nil
	}
	block, place, _ := x.at(key)
	var out []item
	for ; block < len(x.blocks) && len(out) < n; block, place = block+1, 0 {
		b := x.blocks[block]
		if place < len(b) {
			out = append(out, b[place:min(len(b), place+n-len(out))]...)
		}
	}
	return out
}

// after is the first text that does not begin with prefix and is behind all that do; ""
// when there is none.
func after(prefix string) string {
	p := prefix
	for p != "" && p[len(p)-1] == 0xff {
		p = p[:len(p)-1]
	}
	if p == "" {
		return ""
	}
	return p[:len(p)-1] + string([]byte{p[len(p)-1] + 1})
}
