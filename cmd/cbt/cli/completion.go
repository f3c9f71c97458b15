package cli

import "github.com/spf13/cobra"

func newCompletionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "print a completion script for bash, zsh, fish or powershell",
		Long: `completion prints the script that makes a shell complete cbt's commands, flags
and files, for bash, zsh, fish or powershell.`,
		Example: `  cbt completion bash > cbt.bash
  . ./cbt.bash`,
		Annotations: exits(exitDone, exitFailed, exitUsage),
		ValidArgs:   []string{"bash", "zsh", "fish", "powershell"},
		Args:        wantArgs("SHELL"),
		RunE: func(c *cobra.Command, args []string) error {
			root := c.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.Stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.Stdout)
			case "fish":
				return root.GenFishCompletion(a.Stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.Stdout)
			}
			return usageErrorf("completion: unknown shell %s: bash, zsh, fish or powershell", printable(args[0]))
		},
	}
}
