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
