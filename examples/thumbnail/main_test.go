package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"strings"
	"testing"
)

func TestShrinkAveragesAreas(t *testing.T) {
	src := image.NewGray(image.Rect(0, 0, 4, 2)) // black, white, black, white …
	for x := range 4 {
		for y := range 2 {
			src.SetGray(x, y, color.Gray{uint8(255 * (x % 2))})
		}
	}
	dst := shrink(src, 2)
	if dst.Rect != image.Rect(0, 0, 2, 1) {
		t.Fatalf("got %v, want 2 x 1", dst.Rect)
	}
	for x := range 2 {
		if got := dst.RGBAAt(x, 0); got != (color.RGBA{128, 128, 128, 255}) {
			t.Errorf("pixel %d is %v, want mid-grey", x, got)
		}
	}
}

func TestShrinkKeepsAColour(t *testing.T) {
	for _, size := range []image.Point{{1, 1}, {7, 3}, {100, 1}, {1, 100}, {333, 211}} {
		src := image.NewNRGBA(image.Rect(5, 5, 5+size.X, 5+size.Y)) // not at the origin
		for i := 0; i < len(src.Pix); i += 4 {
			copy(src.Pix[i:], []uint8{200, 100, 50, 255})
		}
		for _, width := range []int{1, 2, 10, 1000} {
			dst := shrink(src, width)
			for i := 0; i < len(dst.Pix); i += 4 {
				if got := dst.Pix[i : i+4]; !bytes.Equal(got, []uint8{200, 100, 50, 255}) {
					t.Fatalf("%v to width %d: a pixel is %v", size, width, got)
				}
			}
		}
	}
}

func TestShrinkDoesNotBleedTransparentColour(t *testing.T) {
	src := image.NewNRGBA(image.Rect(0, 0, 2, 1))
	src.SetNRGBA(0, 0, color.NRGBA{0, 0, 255, 255})
	src.SetNRGBA(1, 0, color.NRGBA{255, 0, 0, 0}) // red, but nobody sees it
	got := color.NRGBAModel.Convert(shrink(src, 1).At(0, 0)).(color.NRGBA)
	if got.R != 0 || got.B < 254 {
		t.Errorf("got %v, want half-transparent pure blue", got)
	}
}

func TestDecompressionBombIsRefused(t *testing.T) {
	for _, size := range [][2]uint32{{50_000, 50_000}, {1, 1 << 20}, {1<<31 - 1, 1<<31 - 1}} {
		var b bytes.Buffer
		if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 1, 1))); err != nil {
			t.Fatal(err)
		}
		bomb := b.Bytes() // the same small file, whose header promises more
		binary.BigEndian.PutUint32(bomb[16:], size[0])
		binary.BigEndian.PutUint32(bomb[20:], size[1])
		binary.BigEndian.PutUint32(bomb[29:], crc32.ChecksumIEEE(bomb[12:29]))

		got, err := thumbnail(context.Background(), &Request{Body: bomb})
		if err != nil || got.Status != 413 && got.Status != 415 {
			t.Errorf("%v: got %+v, %v, want a refusal", size, got, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 8, 8))); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		query  string
		body   []byte
		status int
	}{
		"no PNG":         {"", []byte("GIF89a"), 415},
		"nothing":        {"", nil, 415},
		"cut short":      {"", b.Bytes()[:40], 422},
		"width zero":     {"width=0", b.Bytes(), 400},
		"width too much": {"width=1025", b.Bytes(), 400},
		"width in words": {"width=ten", b.Bytes(), 400},
		"a broken query": {"width=%zz", b.Bytes(), 400},
	}
	for name, tt := range tests {
		got, err := thumbnail(context.Background(), &Request{Query: tt.query, Body: tt.body})
		if err != nil || got.Status != tt.status || !strings.Contains(string(got.Body), `"error"`) {
			t.Errorf("%s: got %+v, %v, want status %d", name, got, err, tt.status)
		}
	}
}
