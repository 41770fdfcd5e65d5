# One bill of materials out of those that cargo-cyclonedx makes of each program (the input, as a
# list), and of the image's other files; nothing in it changes with the machine or the time.
#   $image            {name, version, revision, id}
#   $crates           ["NAME@VERSION", ..]: what the programs contain
#   $programs         {NAME: SHA-256}
#   $files            the other files, as components
#   $compiler         the version of rustc, and so of its library
def ours: .["bom-ref"] | startswith("path+");
# Without a package URL of their own: the registry may have others of the same names.
def reference: if ours then "secure-inference:\(.name)" else "pkg:cargo/\(.name)@\(.version)" end;
def contained: "\(.name)@\(.version)" | IN($crates[]);

([.[] | .metadata.component, .components[]] | unique_by(.["bom-ref"])) as $all
| ($all | map(select(contained)) | map({(.["bom-ref"]): reference}) | add) as $references
| ($all | map(select(contained) | reference as $reference
    | if ours then del(.purl) else . end
    | if ours and $programs[.name] then
        . + {type: "application", hashes: [{alg: "SHA-256", content: $programs[.name]}]}
      else . end
    | .["bom-ref"] = $reference | del(.components))) as $parts
| {type: "library", "bom-ref": "std", name: "std", version: $compiler, description: "Rust's standard library"} as $std
| ([.[].dependencies[] | select($references[.ref])
    | {ref: $references[.ref], dependsOn: [.dependsOn[]? | $references[.] // empty]}]
  | group_by(.ref) | map({ref: .[0].ref, dependsOn: (map(.dependsOn[]) | unique)})) as $edges
| {
    bomFormat: "CycloneDX", specVersion: "1.5", version: 1,
    metadata: {
      tools: .[0].metadata.tools,
      component: {
        type: "container", "bom-ref": "image", name: $image.name, version: $image.version,
        hashes: [{alg: "SHA-256", content: $image.id}],
        properties: [{name: "org.opencontainers.image.revision", value: $image.revision}]
      }
    },
    components: ($parts + [$std] + $files | sort_by(.["bom-ref"])),
    dependencies: ([{ref: "image", dependsOn: ([$programs | keys[] | "secure-inference:" + .] + ["std"] + ($files | map(.["bom-ref"])) | sort)}]
      + $edges | sort_by(.ref))
  }
