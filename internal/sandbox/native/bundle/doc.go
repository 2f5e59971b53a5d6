// Package bundle reads the artifact of a native version: one zip archive that
// holds the files of one folder. It decides whether an archive is one we accept
// (Check, at deployment) and writes its files below a directory (Unpack, before a
// sandbox starts).
//
// The native sandbox and the composition root may import it, which hands Check to
// the control plane. It imports nothing of the platform. All functions may be
// called from many goroutines, as long as no two unpack into one directory.
//
// # What an archive must be
//
// An archive comes from whoever may deploy, so it is read as an attacker's. Two
// readers see it, ours for its structure and the standard library's for its
// content, and must agree on every entry. It is refused, with an *Error that names
// the entry, unless:
//
//   - it has one directory, at its very end, without comment, on one disk, and no
//     zip64 record, which nothing within our limits needs; its entries fill the
//     space before the directory without gap or overlap (a data descriptor may
//     stand between), so there is nothing that some reader sees and another not;
//   - its entries are stored or deflated, not encrypted, and their sizes and
//     checksums are what the directory says;
//   - its names are relative, UTF-8, separated by single slashes, free of . and ..,
//     backslashes, control and format characters; no two are alike, letter case
//     aside, and nothing lies below a file or a link;
//   - its entries are files, directories and symbolic links, without set-user-id,
//     set-group-id or sticky bit;
//   - its links are relative and have .. only in front, no more often than their
//     own directory is deep: followed in any order they stay inside.
//
// # What the client's packer does
//
// The packer sorts names, writes no times and no directory entries, stores or
// deflates, and sets the mode 0644, or 0755 for what its owner may execute. Two
// packs of the same folder are alike to the byte, and so is the version's id.
//
// # What comes out
//
// Files get the mode 0444, or 0555 when anybody could execute them; directories
// 0555. Links are made last, when nothing will be written any more. Each path is
// resolved by the kernel below the directory, without following a link
// (openat2(2), RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS). When Unpack fails, what it
// wrote until then is still there: drop the directory.
package bundle
