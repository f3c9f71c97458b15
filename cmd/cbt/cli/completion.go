package cli

import (
	"bytes"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/text"
)

func newCompletionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "print a completion script for bash, zsh, fish or powershell",
		Long: `completion prints the script that makes a shell complete cbt's commands, flags
and files, for bash, zsh, fish or powershell.`,
		Example: `  cbt completion bash > cbt.bash
  . ./cbt.bash`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode),
		ValidArgs:   []string{"bash", "zsh", "fish", "powershell"},
		Args:        wantArgs("SHELL"),
		RunE: func(c *cobra.Command, args []string) error {
			root := c.Root()
			switch args[0] {
			case "bash":
				return bashCompletion(root, a.Stdout)
			case "zsh":
				return root.GenZshCompletion(a.Stdout)
			case "fish":
				return root.GenFishCompletion(a.Stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.Stdout)
			}
			return fail.Usage("completion: unknown shell %s: bash, zsh, fish or powershell", text.Printable(args[0]))
		},
	}
}

// bashAt completes what follows an @, at which bash begins a new word: it wants only
// what comes behind the last one.
const bashAt = `
__cbt_complete()
{
    __start_cbt "$@"
    local line=${COMP_LINE:0:COMP_POINT} word i
    word=${line##*[[:space:]]}
    if [[ $word == *@* && $COMP_WORDBREAKS == *@* ]]; then
        for i in "${!COMPREPLY[@]}"; do
            COMPREPLY[i]=${COMPREPLY[i]#"${word%@*}@"}
        done
    fi
}
`

// bashCompletion writes cobra's script, which takes words apart only at "=" and ":",
// so that it takes them apart at "@" too.
func bashCompletion(root *cobra.Command, w io.Writer) error {
	var b bytes.Buffer
	if err := root.GenBashCompletionV2(&b, true); err != nil {
		return err
	}
	script := b.Bytes()
	words, start := []byte("completion -n =: ||"), []byte("-F __start_cbt cbt")
	if bytes.Count(script, words) != 2 || bytes.Count(script, start) != 2 {
		return errors.New("internal error: the script for bash is not what it was")
	}
	script = bytes.ReplaceAll(script, words, []byte("completion -n =:@ ||"))
	script = bytes.ReplaceAll(script, start, []byte("-F __cbt_complete cbt"))
	end := bytes.Index(script, []byte("\nif [[ $(type -t compopt)"))
	if end < 0 {
		return errors.New("internal error: the script for bash has another end")
	}
	_, err := w.Write(append(append(bytes.Clone(script[:end]), bashAt...), script[end:]...))
	return err
}
