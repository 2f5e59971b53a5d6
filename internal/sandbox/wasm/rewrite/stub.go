package rewrite

import "crypto/sha256"

// digestSection names the stub's custom section.
const digestSection = Reserved + "module"

// stub gives the finished module with empty bodies.
func (w *rewriter) stub() []byte {
	const body = "\x03\x00" + string(rune(opUnreachable)) + string(rune(opEnd)) // its length, no locals
	from, to := w.codeAt[0], w.codeAt[1]
	b := make([]byte, 0, len(w.out)-(to-from)+2*sectionHead+w.bodies*len(body)+len(digestSection)+1+sha256.Size)
	s := &rewriter{out: append(b, w.out[:from]...)}
	if from < to {
		mark := s.begin(idCode)
		s.vector(w.bodies)
		for range w.bodies {
			s.out = append(s.out, body...)
		}
		s.finish(mark)
	}
	s.out = append(s.out, w.out[to:]...)
	mark := s.begin(idCustom)
	s.string(digestSection)
	digest := sha256.Sum256(w.out)
	s.out = append(s.out, digest[:]...)
	s.finish(mark)
	return s.out
}
