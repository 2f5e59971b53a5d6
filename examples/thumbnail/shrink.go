package main

import (
	"image"
	"image/color"
)

// shrink scales src down to the given width, keeping its proportions. Each new
// pixel is the mean of the area it covers (a box filter), weighted by how much of
// each old pixel lies inside; colours are premultiplied by alpha, so that what is
// transparent does not bleed in.
func shrink(src image.Image, width int) *image.RGBA {
	b := src.Bounds()
	width = min(width, b.Dx())
	height := max(1, (b.Dy()*width+b.Dx()/2)/b.Dx())
	dst := image.NewRGBA(image.Rect(0, 0, width, height))

	columns, rows := cover(b.Dx(), width), cover(b.Dy(), height)
	narrow := make([]float32, 4*width) // one old row, as narrow as the new ones
	sum := make([]float32, 4*width)    // the new row so far
	squeezed := -1
	for newY, row := range rows {
		clear(sum)
		for i, weight := range row.weights {
			if old := row.first + i; old != squeezed { // one on a border is needed twice
				squeeze(narrow, src, b, old, columns)
				squeezed = old
			}
			for j, v := range narrow {
				sum[j] += weight * v
			}
		}
		for x := range width {
			s := sum[4*x : 4*x+4]
			dst.SetRGBA(x, newY, color.RGBA{eight(s[0]), eight(s[1]), eight(s[2]), eight(s[3])})
		}
	}
	return dst
}

// squeeze shrinks one old row into narrow, red, green, blue and alpha in turn.
func squeeze(narrow []float32, src image.Image, b image.Rectangle, old int, columns []area) {
	clear(narrow)
	for x, column := range columns {
		for i, weight := range column.weights {
			red, green, blue, alpha := src.At(b.Min.X+column.first+i, b.Min.Y+old).RGBA()
			narrow[4*x] += weight * float32(red)
			narrow[4*x+1] += weight * float32(green)
			narrow[4*x+2] += weight * float32(blue)
			narrow[4*x+3] += weight * float32(alpha)
		}
	}
}

// area says which old pixels a new one covers, and the share of each.
type area struct {
	first   int
	weights []float32 // add up to 1
}

func cover(from, to int) []area {
	areas := make([]area, to)
	scale := float64(from) / float64(to)
	for i := range areas {
		start, end := float64(i)*scale, float64(i+1)*scale
		first, last := int(start), min(int(end), from-1)
		for old := first; old <= last; old++ {
			share := min(end, float64(old+1)) - max(start, float64(old))
			if share > 1e-9 {
				areas[i].weights = append(areas[i].weights, float32(share/scale))
			}
		}
		areas[i].first = first
	}
	return areas
}

// eight rounds a 16-bit channel to 8 bits.
func eight(v float32) uint8 { return uint8(min(max(v/257+0.5, 0), 255)) }
