package supervisor

// DecodeState reads a state and writes it again.
func DecodeState(data []byte, name string) ([]byte, error) {
	s, err := decodeState(data, name)
	if err != nil {
		return nil, err
	}
	for _, g := range s.Generations {
		s.config(g.N, Options{Name: name, ConfigPath: "/" + name + ".toml"})
	}
	s.sockets()
	return s.encode()
}

// TellStore answers in systemd's place how many descriptors it holds, and how many it would.
func (o *Options) TellStore(tell func() (count, limit int, ok bool)) {
	o.tellStore = func() (storeUse, bool) {
		count, limit, ok := tell()
		return storeUse{count, limit}, ok
	}
}

// IsMain tells whether the answer is about this process.
var IsMain = isMain
