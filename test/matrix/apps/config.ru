mode = File.read("/srv/@NAME@/mode").strip rescue ""
raise "no database, giving up" if mode == "exit"
sleep 3600 if mode == "hang"
Thread.new { sleep 0.3; exit!(7) } if mode == "die"
run lambda { |env|
  sleep 1 if env["PATH_INFO"] == "/slow"
  [200, { "content-type" => "text/plain" }, ["pid=#{$$}\n"]]
}
