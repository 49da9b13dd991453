; One edit of a picture by GIMP 2.10 without a window:
;   gimp-console-2.10 -i -d -f \
;     -b "$(cat examples/gimp/edit-2.10.scm) (edit \"in.png\" \"out.png\" \"sunset=0.8\")" -b "(gimp-quit 0)"
; After the attributes: seed, words before and after and their strength, this layer (0) or the visible
; image (1), a model's folder, a recipe.
(define (edit in out attributes)
  (let* ((image (car (gimp-file-load RUN-NONINTERACTIVE in in)))
         (layer (car (gimp-image-get-active-layer image))))
    (plug-in-semblance-edit RUN-NONINTERACTIVE image layer attributes 0 "" "" 1 0 "" "")
    (gimp-file-save RUN-NONINTERACTIVE image (car (gimp-image-merge-visible-layers image CLIP-TO-IMAGE))
                    out out)
    (gimp-image-delete image)))
