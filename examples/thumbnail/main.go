package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"net/url"
	"strconv"
)

// A few kilobytes of PNG can unfold into gigabytes of pixels, so the dimensions
// are read from its header and bounded before anything is decoded.
const (
	maxPixels    = 8 << 20
	maxSide      = 8192
	maxWidth     = 1024
	defaultWidth = 128
)

func main() { Serve(thumbnail) }

// thumbnail answers a PNG with a smaller PNG, ?width= pixels wide. A picture that
// is narrower already keeps its size.
func thumbnail(_ context.Context, r *Request) (*Response, error) {
	width, err := wantedWidth(r.Query)
	if err != nil {
		return refuse(400, err)
	}
	header, err := png.DecodeConfig(bytes.NewReader(r.Body))
	if err != nil {
		return refuse(415, errors.New("the body is not a PNG"))
	}
	if max(header.Width, header.Height) > maxSide || header.Width*header.Height > maxPixels {
		return refuse(413, fmt.Errorf("%d x %d pixels are too many: at most %d a side and %d in all are taken",
			header.Width, header.Height, maxSide, maxPixels))
	}
	src, err := png.Decode(bytes.NewReader(r.Body))
	if err != nil {
		return refuse(422, errors.New("the PNG is damaged"))
	}
	dst := shrink(src, width)
	println("from", header.Width, "x", header.Height, "to", dst.Rect.Dx(), "x", dst.Rect.Dy())

	var out bytes.Buffer
	if err := png.Encode(&out, dst); err != nil {
		return nil, err
	}
	return &Response{ContentType: "image/png", Body: out.Bytes()}, nil
}

func wantedWidth(query string) (int, error) {
	q, err := url.ParseQuery(query)
	if err != nil {
		return 0, errors.New("the query is malformed")
	}
	if !q.Has("width") {
		return defaultWidth, nil
	}
	width, err := strconv.Atoi(q.Get("width"))
	if err != nil || width < 1 || width > maxWidth {
		return 0, fmt.Errorf("width must be a number from 1 to %d", maxWidth)
	}
	return width, nil
}

func refuse(status int, why error) (*Response, error) {
	return JSON(status, map[string]string{"error": why.Error()})
}
