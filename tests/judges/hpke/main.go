// An independent HPKE, Go's own: it makes a key, says the public half, and opens one wrap.
//
// Arguments: KEM and KDF by their HPKE ids, decimal; the AEAD is AES-256-GCM. It writes the
// public key in hexadecimal, reads two lines (info, wrap), and writes what it opened.
package main

import (
	"bufio"
	"crypto/hpke"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
)

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func id(text string) uint16 {
	return uint16(must(strconv.ParseUint(text, 10, 16)))
}

func main() {
	kem := must(hpke.NewKEM(id(os.Args[1])))
	kdf := must(hpke.NewKDF(id(os.Args[2])))
	key := must(kem.GenerateKey())
	fmt.Println(hex.EncodeToString(key.PublicKey().Bytes()))

	lines := bufio.NewReader(os.Stdin)
	read := func() []byte {
		return must(hex.DecodeString(strings.TrimSpace(must(lines.ReadString('\n')))))
	}
	info := read()
	fmt.Println(hex.EncodeToString(must(hpke.Open(key, kdf, hpke.AES256GCM(), info, read()))))
}
