package guests
import ("testing";"time";"os";"os/exec";"path/filepath";"github.com/casemate-dev/casemate/internal/cli/build")
func TestFig(t *testing.T){ es,_:=Load(examplesDir(t)); os.MkdirAll("/tmp/fig",0o755)
gc:=t.TempDir()
for _,e:=range es { r:=e.request(); r.CacheDir=t.TempDir(); r.Clock=time.Now
 d:=t.TempDir(); exec.Command("cp","-r",e.Dir+"/.",d).Run(); os.RemoveAll(filepath.Join(d,"node_modules")); r.Dir=d
 r.Env=append(os.Environ(),"GOCACHE="+gc)
 if r.Runtime=="go" { gc=filepath.Join(t.TempDir()); r.Env=append(os.Environ(),"GOCACHE="+gc) }
 a,err:=build.Build(t.Context(),r); if err!=nil{t.Fatal(err)}
 b,err:=build.Build(t.Context(),r); if err!=nil{t.Fatal(err)}
 os.WriteFile("/tmp/fig/"+e.Function.Name+".wasm",a.Bytes,0o644)
 t.Logf("%-10s %-15s %8d B cold %v warm %v same %v",e.Function.Name,r.Runtime,len(a.Bytes),a.Duration.Round(10*time.Millisecond),b.Duration.Round(10*time.Millisecond),a.Digest==b.Digest) } 
 exec.Command("chmod","-R","u+w",gc).Run() }
